import { afterAll, beforeAll, expect, test } from "bun:test";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState } from "@warren/proto/common";
import { type FakeScheduler, isAlive, TestSite } from "../test/support.ts";

const pausedMs = 30_000;

let site: TestSite;
let scheduler: FakeScheduler;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
});

afterAll(() => site[Symbol.asyncDispose]());

test("rule 7, rule 8: an agent that is stopped for 30 s and continued has lost nothing and harmed nobody", async () => {
  const agent = await site.spawnAgent(site.options(scheduler.url, { onStop: "stop" }));
  const { t } = agent;
  const liveness = {
    path: "/",
    interval: { nanos: 200_000_000 },
    timeout: { nanos: 300_000_000 },
    threshold: 2,
  };
  const watched = await t.start("hello.ts", { liveness });
  const dying = await t.start("fork-and-crash.ts", {}, t.ref("dying"));
  const url = (one: typeof watched) => `http://127.0.0.1:${one.endpoint!.port}/`;
  const starting = t.ref("starting");
  // Not ready before the pause; its time to be ready passes in it.
  const start = t
    .start("slow.ts", { env: { DELAY_MS: "2000" }, readiness: { timeout: { seconds: 10n } } }, starting)
    .catch(() => undefined);
  await waitUntil(async () => (await t.list()).length === 3, { deadlineMs: 5_000 });

  agent.process.kill("SIGSTOP");
  const until = performance.now() + pausedMs;
  await fetch(url(dying)).catch(() => undefined); // it answers and dies
  let answers = 0;
  while (performance.now() < until) {
    expect(await (await fetch(url(watched))).text()).toBe("hello");
    answers++;
    await Bun.sleep(500); // the traffic of the pause
  }
  agent.process.kill("SIGCONT");

  const { exit } = await scheduler.untilExited(dying.ref!.id);
  expect(exit).toMatchObject({ reason: ExitReason.CRASHED, code: 7 });
  await start;
  const ready = await waitUntil(
    async () =>
      (await t.list()).find((one) => one.ref?.id === starting.id && one.state === InstanceState.READY),
    { deadlineMs: 10_000, what: "what was starting is ready" },
  );
  expect(isAlive(ready.pid)).toBe(true);
  expect(answers).toBeGreaterThan(20);
  const [same] = (await t.list()).filter((one) => one.ref?.id === watched.ref!.id);
  expect(same).toMatchObject({ state: InstanceState.READY, pid: watched.pid });
  await waitUntil(() => (scheduler.usages(watched.ref!.id).at(-1)?.usage?.wallMs ?? 0n) > BigInt(pausedMs), {
    deadlineMs: 10_000,
    what: "the time of the pause is counted",
  });
  await t.stop(watched.ref!.id);
  const wallMs = Number((await scheduler.untilExited(watched.ref!.id)).usage!.wallMs);
  expect(wallMs).toBeLessThan(pausedMs + 30_000);
  agent.process.kill("SIGTERM");
  expect(await agent.process.exited).toBe(0);
}, 120_000);
