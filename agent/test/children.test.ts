/** What a tenant's own children use, where only the process table tells of it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type FakeScheduler, TestSite } from "./support.ts";

let site: TestSite;
let scheduler: FakeScheduler;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
});

afterAll(() => site[Symbol.asyncDispose]());

test("rule 8: CPU of a child that ended long before its parent looked after it is counted once", async () => {
  const t = await site.agent(scheduler.url, { hostKind: "none" });
  const instance = await t.start("late-parent.ts");
  const answer = await fetch(`http://127.0.0.1:${instance.endpoint!.port}/work`);
  const { used } = (await answer.json()) as { used: number };
  expect(used).toBeGreaterThan(500_000);
  await t.stop(instance.ref!.id);
  const { usage } = await scheduler.untilExited(instance.ref!.id);
  // The rest is what both took to start and to end, in ticks of 10 ms each.
  expect(Number(usage!.cpuUs)).toBeGreaterThan(used - 50_000);
  expect(Number(usage!.cpuUs)).toBeLessThan(used + 250_000);
}, 20_000);
