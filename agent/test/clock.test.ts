import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { fromDuration, fromTimestamp, waitUntil } from "@warren/common/time";
import { ExitReason, InstanceMode, InstanceState, type Transition } from "@warren/proto/common";
import { type FakeScheduler, TestSite } from "./support.ts";

let site: TestSite;
let scheduler: FakeScheduler;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
});

afterAll(() => site[Symbol.asyncDispose]());

const { PENDING, STARTING, READY, STOPPING, EXITED } = InstanceState;
const { UNSPECIFIED, ACTIVE, FROZEN } = InstanceMode;
const hourMs = 3_600_000;
const shape = ({ from, to, fromMode, toMode }: Transition) => [from, to, fromMode, toMode];

test("rule 8: a wall clock that is set back and ahead changes no duration and no counter, over adoption too", async () => {
  const began = performance.now();
  const o = site.options(scheduler.url, { onStop: "keep" });
  const first = await site.spawnAgent(o, [join(import.meta.dir, "stepping-agent.ts")]);
  const ref = Object.assign(first.t.ref(), { specVersion: 9n });
  await first.t.start("hello.ts", {}, ref);
  const { id } = ref;
  const said = (one: (transition: Transition) => boolean) =>
    waitUntil(() => scheduler.transitions(id).find(one), { deadlineMs: 5_000, what: "a transition" });
  const wall = (transition: Transition) => fromTimestamp(transition.at, 0);
  const ready = await said(({ to }) => to === READY);
  const freeze = async (wakes: bigint) => {
    const agent = site.client(first.t.agent.url);
    await agent.freezeInstance({ epoch: 1n, instance: id, ifWakes: wakes });
    return said(({ toMode, wakes: at }) => toMode === FROZEN && at === wakes);
  };
  first.process.kill("SIGUSR1");
  const frozen = await freeze(0n);
  expect(wall(frozen)).toBeLessThan(wall(ready) - hourMs);
  first.process.kill("SIGUSR2");
  await first.t.rpc.thawInstance({ instance: id });
  await first.t.rpc.thawInstance({ instance: id }); // a repeat: no thaw
  const active = await said(({ wakes }) => wakes === 1n);
  expect(wall(active)).toBeGreaterThan(wall(frozen) + 2 * hourMs);
  await freeze(2n);
  await first.kill();

  const second = await site.spawnAgent(o); // its clock is right again: an hour back
  const [adopted] = await second.t.list();
  expect(adopted?.usage?.thaws).toBe(1n);
  expect(adopted?.ref?.specVersion).toBe(9n);
  const gateway = site.client(second.t.agent.url, site.credentials.gateway);
  await gateway.thawInstance({ instance: id });
  await second.t.stop(id);
  const last = await scheduler.untilExited(id);
  const livedMs = performance.now() - began;

  expect(last.usage?.thaws).toBe(2n);
  const all = scheduler.transitions(id);
  expect(all.map(shape)).toEqual([
    [PENDING, STARTING, UNSPECIFIED, UNSPECIFIED],
    [STARTING, READY, UNSPECIFIED, ACTIVE],
    [READY, READY, ACTIVE, FROZEN],
    [READY, READY, FROZEN, ACTIVE],
    [READY, READY, ACTIVE, FROZEN],
    [READY, READY, FROZEN, ACTIVE],
    [READY, STOPPING, ACTIVE, UNSPECIFIED],
    [STOPPING, EXITED, UNSPECIFIED, UNSPECIFIED],
  ]);
  // One after the other they are its life, whatever the wall clock did.
  const afters = all.map(({ after }) => fromDuration(after, -1));
  for (const ms of afters) expect(ms).toBeGreaterThanOrEqual(0);
  const summedMs = afters.reduce((sum, ms) => sum + ms, 0);
  expect(summedMs).toBeLessThan(livedMs + 20); // uptime is known to 10 ms
  expect(summedMs).toBeGreaterThan(Number(last.usage!.wallMs) - 20);
  const usages = [...scheduler.usages(id), ...all].map(({ usage }) => usage!);
  for (const { wallMs, frozenMs } of usages) {
    expect(Number(wallMs)).toBeLessThan(livedMs);
    expect(frozenMs).toBeLessThanOrEqual(wallMs);
  }
});

test("READY says where the time of the start went, STOPPING and EXITED say why", async () => {
  const t = await site.agent(scheduler.url);
  const { ref } = await t.start("hello.ts", {}, t.ref("app", { generation: 7n }));
  await t.stop(ref!.id, ExitReason.REPLACED);
  const { exit } = await scheduler.untilExited(ref!.id);
  const all = scheduler.transitions(ref!.id);
  const [ready] = all.filter(({ to }) => to === READY);
  const { fetch, queue, spawn, listen, answer } = ready!.startPhases!;
  const phases = [fetch, queue, spawn, listen, answer].map((phase) => fromDuration(phase, -1));
  for (const ms of phases) expect(ms).toBeGreaterThanOrEqual(0);
  // From STARTING on: listening, and answering.
  expect(phases[3]! + phases[4]!).toBeLessThanOrEqual(fromDuration(ready!.after, 0) + 5);
  expect(all.filter(({ startPhases }) => startPhases).length).toBe(1);
  expect(exit?.reason).toBe(ExitReason.REPLACED);
  for (const { instance, to, exit } of all) {
    expect(instance).toMatchObject({ node: "n1", generation: 7n, tenant: "app" });
    expect(exit?.reason).toBe(to >= InstanceState.DRAINING ? ExitReason.REPLACED : undefined);
  }
  await t.agent.stop();
});
