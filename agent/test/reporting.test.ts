import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Code } from "@warren/common/rpc/errors";
import { isQuick } from "@warren/common/testing/quick";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState, Isolation } from "@warren/proto/common";
import { AgentStartError, startAgent } from "../src/index.ts";
import { FakeScheduler, failure, recordingLog, type TestAgent, TestSite } from "./support.ts";

let site: TestSite;
beforeAll(async () => {
  site = await TestSite.open();
});
afterAll(() => site[Symbol.asyncDispose]());

/** A figure of the agent's /metrics. */
async function metric(url: string, name: string): Promise<number> {
  const { ca, token } = site.credentials.scheduler;
  const text = await (
    await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` }, tls: { ca } })
  ).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? 0);
}

describe("joining", () => {
  test("says who the node is; the first report has the inventory and the fence", async () => {
    const scheduler = await site.scheduler();
    scheduler.epoch = 7n;
    const t = await site.agent(scheduler.url, { labels: { zone: "a" } });
    await waitUntil(() => scheduler.reports.length > 0, { deadlineMs: 5_000 });
    expect(scheduler.joins[0]).toMatchObject({
      node: "n1",
      agentUrl: t.agent.url,
      incarnation: t.agent.incarnation,
      labels: { zone: "a" },
      isolation: [Isolation.NONE],
      allowDirectories: true,
      highestEpoch: 0n,
    });
    expect(scheduler.joins[0]?.bootId).toMatch(/^[0-9a-f-]{36}$/);
    expect(scheduler.reports[0]).toMatchObject({ fencedEpoch: 7n, inventory: { instances: [] } });
    expect(scheduler.reports[0]?.pressure?.hostMemoryAvailableBytes).toBeGreaterThan(0n);
    expect((await failure(t.start("hello.ts"))).code).toBe(Code.FailedPrecondition);
    await waitUntil(() => scheduler.reports.length > 1, { deadlineMs: 5_000 });
    expect(scheduler.reports[1]?.inventory).toBeUndefined();
    await t.agent.stop();
  });

  test("rule 7: an agent serves without its scheduler, joins when it comes, and hands over what happened", async () => {
    const scheduler = await site.scheduler();
    const { port } = scheduler.server;
    await scheduler.stop();
    const t = await site.agent(`https://127.0.0.1:${port}`);
    const instance = await t.start("hello.ts");
    expect(instance.state).toBe(InstanceState.READY);
    const other = await t.start("hello.ts");
    await t.stop(other.ref!.id);
    expect(t.agent.joined).toBe(false);
    const late = await FakeScheduler.start(site.credentials.scheduler, port);
    site.later(() => late.stop());
    await late.untilExited(other.ref!.id);
    expect(late.reports[0]?.inventory?.instances.map((one) => one.ref?.id)).toEqual([instance.ref!.id]);
    expect(late.transitions(instance.ref!.id).map((one) => one.to)).toEqual([
      InstanceState.STARTING,
      InstanceState.READY,
    ]);
    await t.agent.stop();
  });

  test("a scheduler that has forgotten the node is joined again, with the inventory", async () => {
    const scheduler = await site.scheduler();
    const t = await site.agent(scheduler.url);
    const instance = await t.start("hello.ts");
    await waitUntil(() => scheduler.transitions(instance.ref!.id).length === 2, { deadlineMs: 5_000 });
    scheduler.forget = true;
    await waitUntil(() => scheduler.joins.length === 2, { deadlineMs: 5_000 });
    await waitUntil(
      () => scheduler.reports.findLast((report) => report.inventory)?.inventory?.instances.length === 1,
      {
        deadlineMs: 5_000,
      },
    );
    await t.agent.stop();
  });

  test("what is wrong is said once per cause, not per try", async () => {
    const lines: { level: string; msg: string; why?: string }[] = [];
    const log = recordingLog((line) => lines.push(line as (typeof lines)[number]));
    const scheduler = await site.scheduler();
    const forged = { ...site.credentials.agent, token: site.credentials.foreign.token };
    const a = await startAgent(site.options(scheduler.url, { credentials: forged, log, hostKind: "none" }));
    await waitUntil(() => lines.some((line) => line.why), { deadlineMs: 5_000 });
    expect(lines.find((line) => line.why)).toMatchObject({
      msg: "the scheduler does not accept this agent's credentials",
    });
    await waitUntil(async () => (await metric(a.url, 'warren_agent_reports_total{outcome="failed"}')) >= 3, {
      deadlineMs: 5_000,
      what: "it was tried again",
    });
    expect(lines.filter((line) => line.why)).toHaveLength(1);
    await a.stop();

    lines.length = 0;
    const b = await startAgent(site.options("https://127.0.0.1:1", { log, hostKind: "none" }));
    await waitUntil(() => lines.some((line) => line.why?.includes("cannot be reached")), {
      deadlineMs: 5_000,
    });
    await b.stop();
    lines.length = 0;
    const c = await startAgent(
      site.options(scheduler.url, { credentials: site.credentials.foreign, log, hostKind: "none" }),
    );
    await waitUntil(
      () => lines.some((line) => line.why?.includes("a certificate that this cell's CA did not sign")),
      {
        deadlineMs: 5_000,
      },
    );
    await c.stop();
  });
});

describe("records", () => {
  test("rule 8: what a scheduler does not take is kept and handed over later, each once, in order", async () => {
    const scheduler = await site.scheduler();
    const t = await site.agent(scheduler.url);
    await waitUntil(() => t.agent.joined, { deadlineMs: 5_000 });
    scheduler.deaf = true;
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const { ref } = await t.start("hello.ts");
      ids.push(ref!.id);
      await t.stop(ref!.id);
    }
    scheduler.deaf = false;
    for (const id of ids) await scheduler.untilExited(id);
    const seqs = scheduler.records.map((record) => record.seq);
    expect(new Set(seqs).size).toBe(seqs.length);
    expect(seqs).toEqual(seqs.toSorted((a, b) => Number(a - b)));
    await t.agent.stop();
  });

  test("rule 9: a spool that is full refuses new starts and goes on when it is taken", async () => {
    const scheduler = await site.scheduler();
    const t = await site.agent(scheduler.url, { spoolRecords: 12 });
    await waitUntil(() => t.agent.joined, { deadlineMs: 5_000 });
    scheduler.deaf = true;
    const refused = await (async () => {
      for (let i = 0; i < 5; i++) {
        const started = await t.start("hello.ts").catch((error: unknown) => error);
        if (started instanceof Error) return failure(Promise.reject(started));
        await t.stop((started as { ref: { id: string } }).ref.id);
      }
      throw new Error("never refused");
    })();
    expect(refused.code).toBe(Code.ResourceExhausted);
    expect(refused.message).toContain("its spool is full");
    scheduler.deaf = false;
    const instance = await waitUntil(() => t.start("hello.ts").catch(() => undefined), {
      deadlineMs: 10_000,
    });
    await t.stop(instance.ref!.id);
    await t.agent.stop();
  });

  test("rule 9: no more instances than the node takes", async () => {
    const scheduler = await site.scheduler();
    const t = await site.agent(scheduler.url, {
      capacity: { memoryBytes: 0, cpuMillis: 0, maxInstances: 1 },
    });
    const instance = await t.start("hello.ts");
    const error = await failure(t.start("hello.ts"));
    expect(error.code).toBe(Code.ResourceExhausted);
    await t.stop(instance.ref!.id);
    const next = await t.start("hello.ts");
    expect(next.state).toBe(InstanceState.READY);
    await t.agent.stop();
    expect(scheduler.transitions(next.ref!.id).at(-1)?.exit?.reason).toBe(ExitReason.DISPOSED);
  });

  test.skipIf(isQuick)(
    "rule 8: usage is reported while it runs, rising, and sums up to the node's pressure",
    async () => {
      const scheduler = await site.scheduler();
      const t = await site.agent(scheduler.url);
      const { ref, endpoint } = await t.start("hello.ts");
      await fetch(`http://127.0.0.1:${endpoint!.port}/burn`);
      const usage = await waitUntil(
        () => scheduler.usages(ref!.id).find((one) => one.usage!.cpuUs > 150_000n)?.usage,
        { deadlineMs: 5_000 },
      );
      expect(usage.memoryBytes).toBeGreaterThan(0n);
      expect(usage.rssBytes).toBeGreaterThan(usage.memoryBytes);
      expect(usage.pids).toBe(1);
      expect(usage.openFiles).toBeGreaterThan(2);
      await waitUntil(
        () =>
          scheduler.reports.some(
            ({ pressure }) => pressure?.liveInstances === 1 && pressure.tenantMemoryBytes > 0n,
          ),
        { deadlineMs: 5_000, what: "the node's pressure counts it" },
      );
      await waitUntil(() => scheduler.reports.some((report) => (report.pressure?.tenantCpuMillis ?? 0) > 0), {
        deadlineMs: 5_000,
        what: "the node's pressure counts its CPU",
      });
      await t.agent.stop();
    },
  );
});

describe("output", () => {
  let scheduler: FakeScheduler;
  let t: TestAgent;
  beforeAll(async () => {
    scheduler = await site.scheduler();
    t = await site.agent(scheduler.url);
  });

  test("a tail, then what comes, until the instance has ended", async () => {
    const { ref, endpoint } = await t.start("noisy.ts");
    const say = (query: string) => fetch(`http://127.0.0.1:${endpoint!.port}/?${query}`);
    await say("lines=3&text=past");
    const got: [string, string][] = [];
    const reading = (async () => {
      for await (const { lines } of t.rpc.streamLogs({ instance: ref!.id, tail: 2, follow: true })) {
        for (const line of lines) got.push([line.stream, line.text]);
      }
    })();
    await waitUntil(() => got.length >= 2, { deadlineMs: 5_000 });
    await say("lines=2&text=new");
    await say("lines=1&text=bad&to=stderr");
    await waitUntil(() => got.some(([, text]) => text === "bad 0"), { deadlineMs: 5_000 });
    await t.stop(ref!.id);
    await reading;
    expect(got.slice(0, 4)).toEqual([
      ["stdout", "past 1"],
      ["stdout", "past 2"],
      ["stdout", "new 0"],
      ["stdout", "new 1"],
    ]);
    expect(got).toContainEqual(["stderr", "bad 0"]);
    // It has ended: its output can still be read.
    const after: string[] = [];
    for await (const { lines } of t.rpc.streamLogs({ instance: ref!.id, tail: 100, follow: true })) {
      after.push(...lines.map((line) => line.text));
    }
    expect(after).toContain("first line");
    expect(after).toHaveLength(8);
    expect(after.at(-1)).toStartWith("[warren] ended: ");
  });

  test("many lines come in bounded batches, none lost", async () => {
    const { ref, endpoint } = await t.start("noisy.ts");
    const texts: string[] = [];
    const stop = new AbortController();
    const reading = (async () => {
      const call = t.rpc.streamLogs({ instance: ref!.id, tail: 0, follow: true }, { signal: stop.signal });
      for await (const { lines } of call) {
        expect(lines.length).toBeLessThanOrEqual(256);
        texts.push(...lines.map((line) => line.text));
      }
    })().catch(() => undefined);
    await waitUntil(
      async () => {
        await fetch(`http://127.0.0.1:${endpoint!.port}/?lines=1&text=probe`);
        return texts.length > 0;
      },
      { deadlineMs: 5_000 },
    );
    await fetch(`http://127.0.0.1:${endpoint!.port}/?lines=20000`);
    await waitUntil(() => texts.includes("line 19999"), { deadlineMs: 10_000 });
    expect(texts.filter((text) => text.startsWith("line "))).toEqual(
      Array.from({ length: 20_000 }, (_, i) => `line ${i}`),
    );
    stop.abort();
    await reading;
    await t.stop(ref!.id);
  });

  test("of an instance that was never here there is none", async () => {
    const error = await failure(
      (async () => {
        for await (const _ of t.rpc.streamLogs({ instance: "01ARZ3NDEKTSV4RRFFQ69G5FAV" }));
      })(),
    );
    expect(error.code).toBe(Code.NotFound);
  });
});

describe("options that are wrong are named", () => {
  test.each([
    [{ node: "Not A Name" }, "node:"],
    [{ runtimeDirectory: "relative" }, "runtimeDirectory:"],
    [{ schedulerUrls: ["http://x:1"] }, "schedulerUrls:"],
    [{ schedulerUrls: [] }, "schedulerUrls:"],
    [{ bunPath: "/no/bun" }, "bunPath:"],
    [{ observeIntervalMs: 0 }, "observeIntervalMs:"],
    [{ capacity: { memoryBytes: -1, cpuMillis: 1, maxInstances: 1 } }, "capacity:"],
    [{ tenantPorts: { from: 10, to: 5 } }, "are no range"],
  ])("%j", async (more, why) => {
    const error = await startAgent(site.options("https://127.0.0.1:1", more)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(AgentStartError);
    expect((error as Error).message).toContain(why);
  });
});
