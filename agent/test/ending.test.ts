import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { fromDuration, toDuration, waitUntil } from "@warren/common/time";
import { ExitReason, type Instance, InstanceState } from "@warren/proto/common";
import { connectionsTo } from "../src/host/listener.ts";
import { bunSpawner } from "../src/spawn.ts";
import { type FakeScheduler, isAlive, pidsOf, type TestAgent, TestSite } from "./support.ts";

let site: TestSite;
let scheduler: FakeScheduler;
let t: TestAgent;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
  t = await site.agent(scheduler.url);
});

afterAll(() => site[Symbol.asyncDispose]());

const url = (instance: Instance, path = "/") => `http://127.0.0.1:${instance.endpoint!.port}${path}`;

describe("draining", () => {
  const stop = (instance: Instance, drainMs: number) =>
    t.rpc.stopInstance({
      epoch: t.epoch,
      instance: instance.ref!.id,
      reason: ExitReason.REPLACED,
      drain: toDuration(drainMs),
    });

  test("a request in flight is finished before the first signal, and not much longer", async () => {
    const instance = await t.start("streaming.ts");
    const answer = fetch(url(instance, "/?ms=400")).then((r) => r.text());
    await waitUntil(() => connectionsTo(instance.endpoint!.port) > 0, { deadlineMs: 5_000 });
    const began = performance.now();
    const stopped = stop(instance, 20_000);
    expect(await answer).toBe("whole");
    await stopped;
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(scheduler.transitions(instance.ref!.id).map((one) => one.to)).toContain(InstanceState.DRAINING);
  });

  test("one that does not end is cut at the deadline; asked again without a drain, at once", async () => {
    for (const again of [false, true]) {
      const instance = await t.start("streaming.ts");
      const answer = fetch(url(instance, "/?ms=60000")).then(
        () => "answered",
        () => "cut",
      );
      await waitUntil(() => connectionsTo(instance.endpoint!.port) > 0, { deadlineMs: 5_000 });
      const stopped = stop(instance, again ? 60_000 : 300);
      if (again) await t.stop(instance.ref!.id);
      const { instance: ended } = await stopped;
      expect(await answer).toBe("cut");
      expect(ended?.exit?.reason).toBe(ExitReason.REPLACED); // the first reason stays
    }
  });
});

test.each([
  ExitReason.IDLE_KILLED,
  ExitReason.LRU_EVICTED,
  ExitReason.KILLED,
  ExitReason.RESTARTED,
  ExitReason.DISPOSED,
  ExitReason.REPLACED,
  ExitReason.SUPERSEDED,
])("the reason %i that a stop names is the one that is told", async (reason) => {
  const instance = await t.start("hello.ts");
  expect((await t.stop(instance.ref!.id, reason))?.exit?.reason).toBe(reason);
  expect((await scheduler.untilExited(instance.ref!.id)).exit?.reason).toBe(reason);
});

test("rule 6: the late end of an old generation changes nothing for the new one", async () => {
  const old = await t.start("polite.ts", {}, t.ref("app", { generation: 1n }));
  const young = await t.start("hello.ts", {}, t.ref("app", { generation: 2n }));
  const stopping = t.stop(old.ref!.id, ExitReason.SUPERSEDED, 5_000);
  process.kill(old.pid, "SIGKILL");
  expect((await stopping)?.ref?.generation).toBe(1n);
  const [left] = (await t.list()).filter((one) => one.ref?.tenant === "app");
  expect(left).toMatchObject({ state: InstanceState.READY, pid: young.pid });
  expect(left?.ref?.generation).toBe(2n);
  expect(await (await fetch(url(young))).text()).toBe("hello");
  expect(scheduler.transitions(young.ref!.id).map((one) => one.to)).not.toContain(InstanceState.EXITED);
  await t.stop(young.ref!.id);
});

describe("the agent's own end", () => {
  test("during a start: the start is answered with what became of it, and nothing is left", async () => {
    const other = await site.agent(scheduler.url, { node: "other", onStop: "stop" });
    const refs = [0, 1, 2].map(() => ({ ...other.ref(), node: "other" }));
    const starts = refs.map((ref) => other.start("slow.ts", { env: { DELAY_MS: "20000" } }, ref));
    await waitUntil(async () => (await other.list()).filter((one) => one.pid > 0).length === 3, {
      deadlineMs: 5_000,
    });
    await other.agent.stop();
    for (const answer of await Promise.all(starts)) expect(answer.exit?.reason).toBe(ExitReason.DISPOSED);
    for (const { id } of refs) {
      expect((await scheduler.untilExited(id)).exit?.reason).toBe(ExitReason.DISPOSED);
      expect(pidsOf(id)).toEqual([]);
    }
  });

  test("with tenants that serve: their connections may end first, as the spec says", async () => {
    const other = await site.agent(scheduler.url, { node: "drains", onStop: "stop" });
    const ref = { ...other.ref(), node: "drains" };
    const instance = await other.start("streaming.ts", { stop: { drain: toDuration(5_000) } }, ref);
    const answer = fetch(url(instance, "/?ms=300")).then((r) => r.text());
    await waitUntil(() => connectionsTo(instance.endpoint!.port) > 0, { deadlineMs: 5_000 });
    await other.agent.stop();
    expect(await answer).toBe("whole");
    expect(isAlive(instance.pid)).toBe(false);
  });
});

test("another way to spawn, and to learn readiness, in their place", async () => {
  const spawned: string[] = [];
  const other = await site.agent(scheduler.url, {
    node: "own",
    spawner: (kernel) => {
      const bun = bunSpawner(kernel);
      return {
        spawn(plan) {
          spawned.push(plan.env.WARREN_TENANT!);
          return bun.spawn({ ...plan, env: { ...plan.env, ADDED: "1" } });
        },
      };
    },
    readiness: () => ({ wait: async () => ({ kind: "ready", listenMs: 0, answerMs: 0 }) }),
  });
  const instance = await other.start("silent.ts", {}, { ...other.ref(), node: "own" });
  expect(instance.state).toBe(InstanceState.READY); // though it never listens
  expect(spawned).toEqual(["app"]);
  await other.agent.stop();
});

test("where the time of a start went is told, and counted by phase", async () => {
  const { startPhases, startDuration } = await t.start("slow.ts", { env: { DELAY_MS: "200" } });
  const ms = (duration: typeof startDuration) => fromDuration(duration, -1);
  expect(ms(startPhases!.listen)).toBeGreaterThan(200);
  expect(ms(startPhases!.listen)).toBeLessThanOrEqual(ms(startDuration) + 1);
  for (const phase of ["fetch", "queue", "spawn", "answer"] as const) {
    expect(ms(startPhases![phase])).toBeGreaterThanOrEqual(0);
  }
  const { ca, token } = site.credentials.scheduler;
  const metrics = await (
    await fetch(`${t.agent.url}/metrics`, { tls: { ca }, headers: { authorization: `Bearer ${token}` } })
  ).text();
  expect(metrics).toMatch(/warren_agent_start_phase_seconds_count\{phase="listen"\} [1-9]/);
  expect(metrics).toMatch(/warren_agent_observation_seconds_count [1-9]/);
  expect(metrics).toMatch(/warren_agent_log_read_bytes_total \d/);
});

describe("several instances of a tenant", () => {
  test("each has a port of its own, and they end apart", async () => {
    const all = await Promise.all([0, 1, 2].map(() => t.start("hello.ts")));
    expect(new Set(all.map((one) => one.endpoint!.port)).size).toBe(3);
    await t.stop(all[0]!.ref!.id);
    for (const one of all.slice(1)) expect(await (await fetch(url(one))).text()).toBe("hello");
    await Promise.all(all.slice(1).map((one) => t.stop(one.ref!.id)));
  });

  test("or one that they share, where the app listens so", async () => {
    const spec = { instances: { sharePort: true } };
    const all = await Promise.all([0, 1, 2].map(() => t.start("shared.ts", spec)));
    expect(all.map((one) => one.exit?.message)).toEqual([undefined, undefined, undefined]);
    expect(new Set(all.map((one) => one.endpoint!.port)).size).toBe(1);
    const seen = new Set<string>();
    await waitUntil(async () => seen.add(await (await fetch(url(all[0]!))).text()).size === 3, {
      deadlineMs: 10_000,
      what: "the kernel deals out connections to all three",
    });
    await t.stop(all[0]!.ref!.id);
    const stranger = await t.start("hello.ts", {}, t.ref("stranger"));
    expect(stranger.endpoint!.port).not.toBe(all[1]!.endpoint!.port);
    expect(all.slice(1).map((one) => one.ref!.id)).toContain(await (await fetch(url(all[1]!))).text());
    await Promise.all([...all.slice(1), stranger].map((one) => t.stop(one.ref!.id)));
  });

  test("one that shares the port and does not itself listen is not ready by another's answer", async () => {
    const spec = { instances: { sharePort: true } };
    const first = await t.start("shared.ts", spec);
    const second = await t.start("silent.ts", { ...spec, readiness: { timeout: toDuration(500) } });
    expect(second.exit?.reason).toBe(ExitReason.READINESS_TIMEOUT);
    expect(second.exit?.message).toContain("does not itself listen");
    await t.stop(first.ref!.id);
  });
});

const seeds = process.env.SEED ? [Number(process.env.SEED)] : [11, 12, Math.floor(Math.random() * 1e9)];
test.each(seeds)(
  "rule 5: starts, stops, restarts, freezes and thaws of one slot by 50 callers at once: SEED=%i",
  async (seed) => {
    let x = seed;
    const next = () => {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      return x / 2 ** 32;
    };
    let generation = 1n;
    let current = t.ref("slot", { generation });
    const all = [current];
    const start = () => t.start("hello.ts", {}, current);
    const wakes = async (id: string) => (await t.list()).find((one) => one.ref?.id === id)?.wakes ?? 0n;
    const deeds = [
      start,
      () => t.stop(current.id, ExitReason.KILLED, Math.floor(next() * 50)),
      async () => {
        const old = current;
        current = t.ref("slot", { generation: ++generation });
        all.push(current);
        await t.stop(old.id, ExitReason.RESTARTED, 50);
        await start();
      },
      async () =>
        t.rpc.freezeInstance({ epoch: t.epoch, instance: current.id, ifWakes: await wakes(current.id) }),
      () => t.rpc.thawInstance({ instance: current.id }),
    ];
    const calls = Array.from({ length: 50 }, async () => {
      await Bun.sleep(next() * 80); // spreads the calls; waits for nothing
      await deeds[Math.floor(next() * deeds.length)]!();
    });
    // A freeze of what is not ready, a thaw of what has gone: refused, and that is all.
    await Promise.allSettled(calls);
    await Promise.all(all.map((ref) => t.stop(ref.id, ExitReason.KILLED, 0)));
    expect(all.flatMap((ref) => pidsOf(ref.id))).toEqual([]);
    expect((await t.list()).filter((one) => one.ref?.tenant === "slot")).toEqual([]);
    for (const { id } of all) {
      const told = scheduler.transitions(id);
      expect(told.filter((one) => one.to === InstanceState.EXITED).length).toBeLessThanOrEqual(1);
      const states = told.map((one) => one.to);
      expect(states).toEqual(states.toSorted((a, b) => a - b)); // only forward
    }
  },
);
