import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { toDuration, waitUntil } from "@warren/common/time";
import { ExitReason, type Instance, InstanceState, ReadinessKind } from "@warren/proto/common";
import { type FakeScheduler, type TestAgent, TestSite } from "./support.ts";

/** By its path: this room does not import that one, tenants do. */
const WORKER = join(import.meta.dir, "../../worker/src/index.ts");
const message = { kind: ReadinessKind.MESSAGE, timeout: toDuration(10_000) };

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
const state = async (instance: Instance) =>
  (await t.list()).find((one) => one.ref?.id === instance.ref!.id)?.state;

describe("readiness by message", () => {
  test("a tenant is ready when it says so, not when it listens", async () => {
    const began = performance.now();
    const instance = await t.start("worker-app.ts", {
      env: { WORKER, DELAY_MS: "400" },
      readiness: message,
    });
    expect(instance.state).toBe(InstanceState.READY);
    expect(performance.now() - began).toBeGreaterThan(400);
    expect(await (await fetch(url(instance))).text()).toBe("worker");
    const ended = await t.stop(instance.ref!.id);
    expect(ended?.exit).toMatchObject({ reason: ExitReason.KILLED, code: 0 }); // its onShutdown ran
  });

  test("one that never says so is a readiness timeout, with a hint", async () => {
    const readiness = { ...message, timeout: toDuration(300) };
    const instance = await t.start("hello.ts", { readiness });
    expect(instance.exit?.reason).toBe(ExitReason.READINESS_TIMEOUT);
    expect(instance.exit?.message).toContain("does it call ready()");
  });

  test("one that says so and ends is ready, and then ended", async () => {
    const command = [
      "bun",
      "-e",
      `const { ready } = await import("${WORKER}"); await ready(); process.exit(4)`,
    ];
    const instance = await t.start("", { command, readiness: message });
    expect([InstanceState.READY, InstanceState.EXITED]).toContain(instance.state);
    const { exit } = await scheduler.untilExited(instance.ref!.id);
    expect(exit).toMatchObject({ reason: ExitReason.CRASHED, code: 4 });
    expect(scheduler.transitions(instance.ref!.id).map((one) => one.to)).toContain(InstanceState.READY);
  });

  test("what was said to an agent that died is known to the next", async () => {
    const o = site.options(scheduler.url, { onStop: "keep" });
    const first = await site.spawnAgent(o);
    const instance = await first.t.start("worker-app.ts", {
      env: { WORKER, EVERY_MS: "50" },
      readiness: message,
      liveness: { heartbeat: toDuration(2_000) },
    });
    await first.kill();
    const second = await site.agent(scheduler.url, o);
    expect(await second.list()).toMatchObject([{ state: InstanceState.READY, pid: instance.pid }]);
    await second.stop(instance.ref!.id);
    await second.agent.stop();
  });
});

test("readiness of the kind none: ready once it runs, also where nothing listens", async () => {
  const instance = await t.start("", { command: ["sleep", "7200"], readiness: { kind: ReadinessKind.NONE } });
  expect(instance.state).toBe(InstanceState.READY);
  await t.stop(instance.ref!.id);
});

describe("liveness", () => {
  const liveness = { path: "/", interval: toDuration(100), timeout: toDuration(500), threshold: 2 };

  test("one that answers 500 is stopped as unhealthy, and its neighbour is not", async () => {
    const neighbour = await t.start("hello.ts", { liveness }, t.ref("neighbour"));
    const sick = await t.start("sick.ts", { liveness });
    const { exit } = await scheduler.untilExited(sick.ref!.id);
    expect(exit?.reason).toBe(ExitReason.UNHEALTHY);
    expect(exit?.message).toContain("2 probes of / in a row failed");
    expect(exit?.message).toContain("500");
    expect(await state(neighbour)).toBe(InstanceState.READY);
    await t.stop(neighbour.ref!.id);
  });

  test("one whose event loop hangs stops beating, and is ended though it hears no SIGTERM", async () => {
    const instance = await t.start("worker-app.ts", {
      env: { WORKER, EVERY_MS: "50" },
      readiness: message,
      liveness: { heartbeat: toDuration(1_000) },
      stop: { grace: toDuration(200) },
    });
    await Bun.sleep(1_500); // it beats
    expect(await state(instance)).toBe(InstanceState.READY);
    void fetch(url(instance, "/hang")).catch(() => undefined);
    const { exit } = await scheduler.untilExited(instance.ref!.id);
    expect(exit).toMatchObject({ reason: ExitReason.UNHEALTHY, signal: "SIGKILL" });
  });

  test("nothing counts in the start period", async () => {
    const instance = await t.start("sick.ts", {
      env: { SICK_MS: "700" },
      liveness: { ...liveness, startPeriod: toDuration(1_000) },
    });
    await Bun.sleep(1_600); // several probes after it
    expect(await state(instance)).toBe(InstanceState.READY);
    await t.stop(instance.ref!.id);
  });
});

test("malformed messages are refused and counted, and the tenant goes on", async () => {
  const script = `
    const { connect } = await import("node:net");
    const say = (text) => new Promise((done) => {
      const socket = connect(process.env.WARREN_SOCKET);
      socket.on("error", done); socket.on("close", done); socket.on("data", () => socket.end());
      socket.write(text);
    });
    for (const text of ["nonsense\\n", "{}\\n", '{"v":1,"type":"kill"}\\n', "\\x00\\xff\\n", "[".repeat(3000) + "\\n",
      '{"v":1,"type":"ready","__proto__":{"v":2}'.padEnd(9000, "x")]) await say(text);
    await say('{"v":1,"type":"ready"}\\n');
    setInterval(() => {}, 1000);`;
  const instance = await t.start("", { command: ["bun", "-e", script], readiness: message });
  expect(instance.exit?.message).toBeUndefined();
  expect(instance.state).toBe(InstanceState.READY);
  await t.stop(instance.ref!.id);
  await waitUntil(async () => (await state(instance)) === undefined, { deadlineMs: 5_000 });
});
