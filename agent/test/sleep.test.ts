import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Code } from "@warren/common/rpc/errors";
import { pause, waitUntil } from "@warren/common/time";
import { ExitReason, type Instance, InstanceMode, InstanceState } from "@warren/proto/common";
import { hasSwap } from "../src/host/procfs.ts";
import {
  type FakeScheduler,
  failure,
  isAlive,
  pidsOf,
  readState,
  type TestAgent,
  TestSite,
} from "./support.ts";

const { ACTIVE, FROZEN } = InstanceMode;

describe.each(["auto", "none"] as const)("freezing on the host kind %s", (hostKind) => {
  let site: TestSite;
  let scheduler: FakeScheduler;
  let t: TestAgent;

  beforeAll(async () => {
    site = await TestSite.open();
    scheduler = await site.scheduler();
    t = await site.agent(scheduler.url, { hostKind });
  });

  afterAll(() => site[Symbol.asyncDispose]());

  const ask = async (instance: Instance) =>
    Number(await (await fetch(`http://127.0.0.1:${instance.endpoint!.port}/`)).text());
  const freeze = (instance: Instance, ifWakes = 0n, pageOut = false) =>
    t.rpc.freezeInstance({ epoch: t.epoch, instance: instance.ref!.id, ifWakes, pageOut });
  const thaw = (instance: Instance) => t.rpc.thawInstance({ instance: instance.ref!.id });

  test("nothing of a frozen instance runs, its children included; thawed it goes on as the same process", async () => {
    const instance = await t.start("ticking.ts", { env: { CHILD: "1" } });
    await ask(instance);
    const frozen = await freeze(instance);
    expect(frozen.instance?.mode).toBe(FROZEN);
    expect((await t.list())[0]?.mode).toBe(FROZEN);
    const cpu = () => pidsOf(instance.ref!.id).map((pid) => readState(pid)!.cpuTicks);
    const before = cpu();
    expect(before.length).toBeGreaterThan(1);
    // The spinning child would use all of this.
    await pause(150);
    expect(cpu()).toEqual(before);
    const { wakes } = await thaw(instance);
    expect(wakes).toBe(1n);
    expect(await ask(instance)).toBeGreaterThan(0);
    await t.stop(instance.ref!.id, ExitReason.KILLED, 0);
  });

  test("a request that was written first is answered after the thaw", async () => {
    const instance = await t.start("hello.ts");
    await freeze(instance);
    let answered = false;
    const answer = fetch(`http://127.0.0.1:${instance.endpoint!.port}/`).then((r) => {
      answered = true;
      return r.text();
    });
    await pause(100);
    expect(answered).toBe(false);
    await thaw(instance);
    expect(await answer).toBe("hello");
    await t.stop(instance.ref!.id);
  });

  test("rule 8: the time frozen is counted apart, and told; what it used does not grow meanwhile", async () => {
    const instance = await t.start("ticking.ts");
    const id = instance.ref!.id;
    await freeze(instance);
    await waitUntil(() => scheduler.usages(id).some((one) => one.usage!.frozenMs > 300n), {
      deadlineMs: 10_000,
      what: "frozen time is reported while it is frozen",
    });
    await thaw(instance);
    await t.stop(id);
    const { usage } = await scheduler.untilExited(id);
    expect(usage!.frozenMs).toBeGreaterThan(300n);
    expect(usage!.wallMs).toBeGreaterThan(usage!.frozenMs);
    const modes = scheduler
      .transitions(id)
      .filter((one) => one.from === one.to)
      .map((one) => [one.fromMode, one.toMode]);
    expect(modes).toEqual([
      [ACTIVE, FROZEN],
      [FROZEN, ACTIVE],
    ]);
  });

  test("a frozen instance hears of its stop, and ends with its own code", async () => {
    const instance = await t.start("polite.ts");
    await freeze(instance);
    const ended = await t.stop(instance.ref!.id, ExitReason.IDLE_KILLED, 5_000);
    expect(ended?.exit).toMatchObject({ reason: ExitReason.IDLE_KILLED, code: 0 });
    expect(isAlive(instance.pid)).toBe(false);
  });

  test("a freeze or a stop that does not know of the last thaw is refused", async () => {
    const instance = await t.start("hello.ts");
    await thaw(instance); // it was not frozen: raised all the same
    for (const call of [
      freeze(instance, 0n),
      t.rpc.stopInstance({
        epoch: t.epoch,
        instance: instance.ref!.id,
        reason: ExitReason.IDLE_KILLED,
        ifWakes: 0n,
      }),
    ]) {
      expect((await failure(call)).code).toBe(Code.FailedPrecondition);
    }
    expect((await freeze(instance, 1n)).instance?.wakes).toBe(1n);
    expect((await failure(freeze({ ...instance, ref: t.ref() }))).code).toBe(Code.NotFound);
    await t.stop(instance.ref!.id);
    expect((await failure(thaw(instance))).code).toBe(Code.NotFound);
  });

  test("a freeze whose caller has gone, undone by a thaw, harms nobody", async () => {
    const instance = await t.start("hello.ts");
    for (let i = 0; i < 20; i++) {
      const wakes = (await t.list())[0]!.wakes;
      const request = { epoch: t.epoch, instance: instance.ref!.id, ifWakes: wakes };
      const freezing = t.rpc.freezeInstance(request, { timeoutMs: 1 }).catch(() => undefined);
      await Promise.all([freezing, thaw(instance)]);
    }
    await thaw(instance);
    expect(await ask(instance)).toBeNaN(); // it answers: "hello"
    await t.stop(instance.ref!.id);
  });

  test("freezes, thaws and a stop from all sides at once: it ends, and nothing is left", async () => {
    for (let round = 0; round < 5; round++) {
      const instance = await t.start("ticking.ts");
      const id = instance.ref!.id;
      const calls = Array.from({ length: 20 }, async (_, i) => {
        if (i % 2) return thaw(instance);
        const wakes = (await t.list()).find((one) => one.ref?.id === id)?.wakes ?? 0n;
        return freeze(instance, wakes);
      });
      const stopped = pause(round).then(() => t.stop(id, ExitReason.KILLED, 1_000));
      await Promise.allSettled(calls);
      expect((await stopped)?.exit?.reason).toBe(ExitReason.KILLED);
      expect(pidsOf(id)).toEqual([]);
    }
  });

  test("after freezes and thaws in any order it runs or rests as it was told last", async () => {
    const instance = await t.start("ticking.ts");
    for (let round = 0; round < 10; round++) {
      const wakes = (await t.list()).find((one) => one.ref?.id === instance.ref!.id)!.wakes;
      const freezing = freeze(instance, wakes).catch((error) => error.code);
      if (round % 2) await freezing;
      await thaw(instance);
      await freezing;
      expect((await t.list())[0]?.mode).toBe(ACTIVE);
      const first = await ask(instance);
      await waitUntil(async () => (await ask(instance)) > first, { deadlineMs: 5_000, what: "it runs" });
    }
    await t.stop(instance.ref!.id);
  });

  test("liveness does not count while it is frozen", async () => {
    const instance = await t.start("hello.ts", {
      liveness: { path: "/", interval: { nanos: 100_000_000 }, timeout: { nanos: 50_000_000 }, threshold: 1 },
    });
    await freeze(instance);
    await pause(500);
    await thaw(instance);
    await pause(300);
    expect((await t.list()).find((one) => one.ref?.id === instance.ref!.id)?.state).toBe(InstanceState.READY);
    await t.stop(instance.ref!.id);
  });

  // Swap is the machine's, not a test's to make: skipped where /proc/swaps is empty.
  test.skipIf(!hasSwap())(
    "paged out (needs swap) it gives its memory back, says how much, and wakes as it was",
    async () => {
      const instance = await t.start("hello.ts");
      const { reclaimedBytes, instance: frozen } = await freeze(instance, 0n, true);
      expect(frozen?.mode).toBe(InstanceMode.PAGED_OUT);
      expect(reclaimedBytes).toBeGreaterThan(1_000_000n);
      const told = await waitUntil(
        () => scheduler.transitions(instance.ref!.id).find((one) => one.toMode === InstanceMode.PAGED_OUT),
        { deadlineMs: 5_000 },
      );
      expect(told.reclaimedBytes).toBe(reclaimedBytes);
      await thaw(instance);
      expect(await (await fetch(`http://127.0.0.1:${instance.endpoint!.port}/`)).text()).toBe("hello");
      await t.stop(instance.ref!.id);
    },
  );

  test.skipIf(hasSwap())(
    "without swap a page-out is a freeze, and says that it gave nothing back",
    async () => {
      const instance = await t.start("hello.ts");
      const { reclaimedBytes, instance: frozen } = await freeze(instance, 0n, true);
      expect(frozen?.mode).toBe(FROZEN);
      expect(reclaimedBytes).toBe(0n);
      await t.stop(instance.ref!.id);
    },
  );

  test("as many as may are active: the next is not thawed, and the caller hears why", async () => {
    const tight = await site.agent(scheduler.url, { hostKind, node: "tight", maxActive: 1 });
    const start = () => tight.start("hello.ts", {}, { ...tight.ref(), node: "tight" });
    const one = await start();
    await tight.rpc.freezeInstance({ epoch: tight.epoch, instance: one.ref!.id, ifWakes: 0n });
    const two = await start();
    const refused = await failure(tight.rpc.thawInstance({ instance: one.ref!.id }));
    expect(refused.code).toBe(Code.ResourceExhausted);
    await tight.stop(two.ref!.id);
    expect((await tight.rpc.thawInstance({ instance: one.ref!.id })).wakes).toBe(1n);
    await tight.agent.stop();
  });
});
