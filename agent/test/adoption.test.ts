import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ulid } from "@warren/common/ids";
import { isQuick } from "@warren/common/testing/quick";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState } from "@warren/proto/common";
import { readBootId, readStat } from "../src/host/procfs.ts";
import { type AgentOptions, startAgent } from "../src/index.ts";
import { noCounters } from "../src/usage.ts";
import { type FakeScheduler, failure, isAlive, pidsWith, TestSite } from "./support.ts";

describe.each(isQuick ? (["auto"] as const) : (["auto", "none"] as const))(
  "on the host kind %s",
  (hostKind) => {
    let site: TestSite;
    let scheduler: FakeScheduler;

    beforeAll(async () => {
      site = await TestSite.open();
      scheduler = await site.scheduler();
    });

    afterAll(() => site[Symbol.asyncDispose]());

    const options = (more: Partial<AgentOptions> = {}) => site.options(scheduler.url, { hostKind, ...more });

    test("rule 7, rule 8: after kill -9 the next agent goes on with the same instance, port, pid and counters", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.spawnAgent(o);
      const instance = await first.t.start("hello.ts");
      const id = instance.ref!.id;
      const url = `http://127.0.0.1:${instance.endpoint!.port}`;
      await fetch(`${url}/burn`);
      const before = await waitUntil(
        () =>
          scheduler
            .usages(id)
            .find((one) => one.usage!.cpuUs > 150_000n && one.usage!.memoryByteSeconds > 0n),
        { deadlineMs: 5_000, what: "usage is reported" },
      );
      await first.kill();

      expect(await (await fetch(url)).text()).toBe("hello");
      const second = await site.spawnAgent(o);
      const [adopted] = await second.t.list();
      expect(adopted).toMatchObject({ state: InstanceState.READY, pid: instance.pid });
      expect(adopted?.ref?.id).toBe(id);
      expect(adopted?.endpoint?.port).toBe(instance.endpoint!.port);
      expect(adopted!.usage!.cpuUs).toBeGreaterThanOrEqual(before.usage!.cpuUs);
      // Its answer to a start of the same id is the instance that runs.
      expect((await second.t.start("hello.ts", {}, instance.ref!)).pid).toBe(instance.pid);
      await fetch(`${url}/burn`);
      await waitUntil(() => scheduler.usages(id).at(-1)!.usage!.cpuUs > before.usage!.cpuUs + 150_000n, {
        deadlineMs: 5_000,
        what: "counters go on",
      });
      await second.t.stop(id);
      const last = await scheduler.untilExited(id);
      expect(last.exit?.reason).toBe(ExitReason.KILLED);
      const counters = [...scheduler.usages(id).map((one) => one.usage!), last.usage!];
      for (const key of ["cpuUs", "memoryByteSeconds", "wallMs"] as const) {
        const values = counters.map((usage) => usage[key]);
        expect(values).toEqual(values.toSorted((a, b) => Number(a - b)));
      }
      expect(isAlive(instance.pid)).toBe(false);
      // Each agent numbers what it tells by itself: no id is given twice.
      const streams = Map.groupBy(scheduler.reports, ({ stream }) => stream);
      expect(streams.size).toBe(2);
      for (const reports of streams.values()) {
        const seqs = reports.flatMap(({ records }) => records.map(({ seq }) => seq));
        expect(seqs).toEqual(seqs.toSorted((a, b) => Number(a - b)));
      }
      second.process.kill("SIGTERM");
      expect(await second.process.exited).toBe(0);
    });

    test("the end of an adopted instance is noticed at once", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.spawnAgent(o);
      const instance = await first.t.start("hello.ts");
      await first.kill();
      const t = await site.agent(scheduler.url, o);
      const began = performance.now();
      process.kill(instance.pid, "SIGKILL");
      await waitUntil(async () => (await t.list()).length === 0, { deadlineMs: 5_000 });
      expect(performance.now() - began).toBeLessThan(500);
      const last = await scheduler.untilExited(instance.ref!.id);
      expect(last.exit?.reason).toBe(ExitReason.UNKNOWN);
      await t.agent.stop();
    });

    test("rule 8: what died while nobody watched is told, and what it left is ended", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.spawnAgent(o);
      const instance = await first.t.start("fork.ts", { env: { MARK: "7401" } });
      const marks = ["sleep 7401", "sleep 7402"];
      for (const mark of marks) await waitUntil(() => pidsWith(mark).length > 0, { deadlineMs: 5_000 });
      await first.kill();
      process.kill(instance.pid, "SIGKILL");
      await waitUntil(() => !isAlive(instance.pid), { deadlineMs: 5_000 });
      const t = await site.agent(scheduler.url, o);
      const last = await scheduler.untilExited(instance.ref!.id);
      expect(last.exit?.reason).toBe(ExitReason.UNKNOWN);
      expect(last.exit?.message).toContain("no agent was there");
      expect(last.usage!.wallMs).toBeGreaterThan(0n);
      expect(marks.flatMap(pidsWith)).toEqual([]);
      expect((await t.start("hello.ts", {}, instance.ref!)).state).toBe(InstanceState.EXITED);
      await t.agent.stop();
      for (const pid of pidsWith("sleep 7403")) process.kill(pid, "SIGKILL");
    });

    test("an instance that was starting becomes ready under the next agent", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.spawnAgent(o);
      const ref = first.t.ref();
      const starting = first.t.start("slow.ts", { env: { DELAY_MS: "700" } }, ref).catch(() => undefined);
      const pid = await waitUntil(async () => (await first.t.list())[0]?.pid, { deadlineMs: 5_000 });
      await first.kill();
      await starting;
      const t = await site.agent(scheduler.url, o);
      const ready = await t.start("slow.ts", {}, ref);
      expect(ready).toMatchObject({ state: InstanceState.READY, pid });
      await t.stop(ref.id);
      await scheduler.untilExited(ref.id);
      expect(scheduler.transitions(ref.id).map((one) => one.to)).toEqual([
        InstanceState.STARTING,
        InstanceState.READY,
        InstanceState.STOPPING,
        InstanceState.EXITED,
      ]);
      await t.agent.stop();
    });

    test("rule 5: a stop under way is finished by the next agent", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.spawnAgent(o);
      const instance = await first.t.start("stubborn.ts");
      const stopping = first.t.stop(instance.ref!.id, ExitReason.LRU_EVICTED, 1_500).catch(() => undefined);
      await waitUntil(async () => (await first.t.list())[0]?.state === InstanceState.STOPPING, {
        deadlineMs: 5_000,
      });
      await first.kill();
      await stopping;
      const t = await site.agent(scheduler.url, o);
      const last = await scheduler.untilExited(instance.ref!.id);
      expect(last.exit?.reason).toBe(ExitReason.LRU_EVICTED);
      expect(isAlive(instance.pid)).toBe(false);
      await t.agent.stop();
    });

    test("a record in the middle of its spawn: whatever runs under its id is ended", async () => {
      const o = options();
      const id = ulid();
      plantRecord(o, id, {});
      const child = Bun.spawn(["sleep", "7006"], { env: { WARREN_INSTANCE: id }, detached: true });
      const t = await site.agent(scheduler.url, o);
      const last = await scheduler.untilExited(id);
      expect(last.exit?.reason).toBe(ExitReason.UNKNOWN);
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
      await t.agent.stop();
    });

    test.each([
      [
        "start time",
        (pid: number) => ({ startTicks: readStat(pid)!.startTicks - 100, bootId: readBootId() }),
      ],
      ["boot", (pid: number) => ({ startTicks: readStat(pid)!.startTicks, bootId: "another-boot" })],
    ])("rule 6: a stranger on a recycled pid (another %s) is never touched", async (what, name) => {
      const o = options();
      const id = ulid();
      const stranger = Bun.spawn(["sleep", "7007"], { env: {}, detached: true });
      plantRecord(o, id, { process: { pid: stranger.pid, ...name(stranger.pid) } });
      const t = await site.agent(scheduler.url, o);
      // Another boot is a proof that the agent's Join gives: the scheduler tells that end.
      const reason = ExitReason.UNKNOWN;
      if (what === "start time") expect((await scheduler.untilExited(id)).exit?.reason).toBe(reason);
      expect((await t.stop(id, ExitReason.KILLED, 0))?.exit?.reason).toBe(reason);
      if (what === "boot") expect(scheduler.transitions(id)).toEqual([]);
      expect(isAlive(stranger.pid)).toBe(true);
      stranger.kill("SIGKILL");
      await t.agent.stop();
    });

    test("a second agent on the same runtime directory is refused, naming the first", async () => {
      const t = await site.agent(scheduler.url, { hostKind });
      await expect(startAgent(t.options)).rejects.toThrow(`in use by another agent (pid ${process.pid})`);
      await t.agent.stop();
      const again = await startAgent(t.options);
      await again.stop();
    });

    test("keep: the tenants go on when the agent stops, and the next one has them", async () => {
      const o = options({ onStop: "keep" });
      const first = await site.agent(scheduler.url, o);
      const instance = await first.start("hello.ts");
      await first.agent.stop();
      expect(isAlive(instance.pid)).toBe(true);
      const t = await site.agent(scheduler.url, { ...o, onStop: "stop" });
      expect((await t.list()).map((one) => one.pid)).toEqual([instance.pid]);
      await t.agent.stop();
      expect(isAlive(instance.pid)).toBe(false);
      expect(scheduler.transitions(instance.ref!.id).at(-1)?.exit?.reason).toBe(ExitReason.DISPOSED);
      expect(readdirSync(join(o.runtimeDirectory, "instances"))).toEqual([]);
    });

    test("rule 9: ids that ended are refused after a restart of the agent, and the epoch is kept", async () => {
      const o = options();
      const first = await site.agent(scheduler.url, o);
      first.epoch = 9n;
      const instance = await first.start("hello.ts");
      await first.stop(instance.ref!.id);
      await first.agent.stop();
      const t = await site.agent(scheduler.url, o);
      expect((await failure(t.start("hello.ts"))).message).toContain("epoch 9 has spoken");
      t.epoch = 9n;
      expect((await t.start("hello.ts", {}, instance.ref!)).exit?.reason).toBe(ExitReason.KILLED);
      await t.agent.stop();
    });

    function plantRecord(o: AgentOptions, id: string, more: object): void {
      const directory = join(o.runtimeDirectory, "instances");
      mkdirSync(directory, { recursive: true });
      writeFileSync(
        join(directory, `${id}.1.json`),
        JSON.stringify({
          version: 1,
          ref: { id, tenant: "app", slot: 0, generation: "1", release: "", node: "n1" },
          state: { phase: "ready", told: InstanceState.READY, since: Date.now() },
          port: 20100,
          group: "",
          graceMs: 100,
          readiness: { path: "", status: 0, timeoutMs: 1000 },
          counters: noCounters(Date.now()),
          ...more,
        }),
      );
    }
  },
);
