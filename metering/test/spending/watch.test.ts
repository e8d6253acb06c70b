/** Limits and budgets against a real ledger, with a clock of the test's own. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { isQuick } from "@warren/common/testing/quick";
import { type UsageLimit, UsageLimitSchema, UsageMeter, UsagePeriod } from "@warren/proto/common";
import fc from "fast-check";
import type { Plans } from "../../src/billing/plan.ts";
import { parsePlans } from "../../src/billing/read-plans.ts";
import { SqliteLedger } from "../../src/ledger/sqlite/ledger.ts";
import { Watch } from "../../src/spending/watch.ts";
import { hour, instanceId, stored, ten, transitionAt, usageAt } from "../events.ts";
import { temporaryDirectory } from "../harness.ts";

const limit = (meter: UsageMeter, period: UsagePeriod, max: bigint): UsageLimit =>
  create(UsageLimitSchema, { meter, period, max });
const cpuAnHour = (max: bigint) => limit(UsageMeter.CPU_SECONDS, UsagePeriod.HOUR, max);
const shop = { tenant: "shop", instance: instanceId(1) };
const second = 1_000_000n;

const budgeted = (micros: number, percents = [50, 100]): Plans =>
  parsePlans(
    "p.json",
    JSON.stringify({
      currency: "EUR",
      plans: {
        pro: {
          prices: [{ meter: "cpu-seconds", model: "unit", micros: 1_000_000 }],
          minimumMicros: 1_000_000,
          budget: { micros, alertPercents: percents },
        },
      },
      default: "pro",
    }),
  );

/** A ledger, a clock, and a watch on both that can be lost and made anew. */
async function bench() {
  const directory = temporaryDirectory();
  const ledger = SqliteLedger.open(directory.path);
  const clock = { now: () => bench.now, monotonic: () => performance.now() };
  let seq = 0;
  const bench = {
    now: ten + hour / 2,
    plans: undefined as Plans | undefined,
    watch: undefined as unknown as Watch,
    ledger,
    restart() {
      bench.watch = new Watch({ ledger, plans: () => bench.plans, clock });
    },
    async post(...records: Parameters<typeof stored>[0]) {
      await bench.watch
        .counting()
        .count("j", stored(records, { after: seq, storedAt: Math.max(bench.now, ten + hour) }));
      seq += records.length;
    },
    async reached() {
      await bench.watch.look(5_000);
      return [...bench.watch.reached()].map(({ tenant, used, until }) => [
        tenant,
        used,
        new Date(until).toISOString(),
      ]);
    },
    async alerts() {
      await bench.watch.look(5_000);
      return bench.watch.due(100);
    },
    async [Symbol.asyncDispose]() {
      await ledger.close();
      directory[Symbol.dispose]();
    },
  };
  bench.restart();
  return bench;
}

describe("a limit", () => {
  test("is reached from its value on, in whole units, until its period ends", async () => {
    await using b = await bench();
    b.watch.setLimits([{ tenant: "shop", limits: [cpuAnHour(10n)] }]);
    await b.post(usageAt(shop, ten, { cpuUs: 10n * second - 1n }));
    expect(await b.reached()).toEqual([]);
    await b.post(usageAt(shop, ten + 1, { cpuUs: 10n * second }));
    expect(await b.reached()).toEqual([["shop", 10n, "2026-06-01T11:00:00.000Z"]]);
    await b.post(usageAt(shop, ten + 2, { cpuUs: 12n * second + 5n }));
    expect(await b.reached()).toEqual([["shop", 12n, "2026-06-01T11:00:00.000Z"]]);
    b.now = ten + hour;
    expect(await b.reached()).toEqual([]);
    // What belongs to the hour before does not count in this one.
    await b.post(
      usageAt(shop, ten + 3, { cpuUs: 50n * second }),
      usageAt(shop, ten + hour, { cpuUs: 59n * second }),
    );
    expect(await b.reached()).toEqual([]);
    await b.post(usageAt(shop, ten + hour + 1, { cpuUs: 60n * second }));
    expect(await b.reached()).toEqual([["shop", 10n, "2026-06-01T12:00:00.000Z"]]);
  });

  test("is of any meter and period, and of several each is told", async () => {
    await using b = await bench();
    b.watch.setLimits([
      {
        tenant: "shop",
        limits: [
          limit(UsageMeter.STARTS, UsagePeriod.MONTH, 1n),
          limit(UsageMeter.MEMORY_GIB_SECONDS, UsagePeriod.DAY, 3n),
          limit(UsageMeter.ACTIVE_SECONDS, UsagePeriod.HOUR, 2n),
          limit(UsageMeter.FROZEN_SECONDS, UsagePeriod.HOUR, 2n),
        ],
      },
    ]);
    await b.post(
      transitionAt(shop, ten, "STARTING", "READY", {
        usage: { memoryByteSeconds: 3n * 2n ** 30n, wallMs: 4_000n, frozenMs: 1_999n },
      }),
    );
    expect(await b.reached()).toEqual([
      ["shop", 1n, "2026-07-01T00:00:00.000Z"],
      ["shop", 3n, "2026-06-02T00:00:00.000Z"],
      ["shop", 2n, "2026-06-01T11:00:00.000Z"],
    ]);
  });

  test("that comes later counts what was used before it; one that goes, or is raised, is reached no more", async () => {
    await using b = await bench();
    await b.post(usageAt(shop, ten, { cpuUs: 10n * second }));
    expect(await b.reached()).toEqual([]);
    const set = (max?: bigint) =>
      b.watch.setLimits(max === undefined ? [] : [{ tenant: "shop", limits: [cpuAnHour(max)] }]);
    set(10n);
    expect(await b.reached()).toHaveLength(1);
    set(11n);
    expect(await b.reached()).toEqual([]);
    set(5n);
    expect(await b.reached()).toHaveLength(1);
    set();
    expect(await b.reached()).toEqual([]);
  });

  test("of a newer version is told to be unknown, and the others are watched", async () => {
    await using b = await bench();
    const newer = limit(99 as UsageMeter, UsagePeriod.HOUR, 1n);
    expect(b.watch.setLimits([{ tenant: "shop", limits: [newer, cpuAnHour(1n)] }])).toBe(1);
    await b.post(usageAt(shop, ten, { cpuUs: second }));
    expect(await b.reached()).toHaveLength(1);
  });

  test("is counted right though the batch failed and nobody knows whether it was committed", async () => {
    await using b = await bench();
    b.watch.setLimits([{ tenant: "shop", limits: [cpuAnHour(10n)] }]);
    await b.post(usageAt(shop, ten, { cpuUs: 4n * second }));
    expect(await b.reached()).toEqual([]);
    // Committed, though the answer was lost.
    const lost = stored([usageAt(shop, ten + 1, { cpuUs: 10n * second })], { after: 10 });
    const failing = new Proxy(b.ledger, {
      get: (target, name) =>
        name === "count"
          ? async (...args: Parameters<SqliteLedger["count"]>) => {
              await target.count(...args);
              throw new Error("the connection is lost");
            }
          : Reflect.get(target, name).bind(target),
    });
    const watch = new Watch({
      ledger: failing,
      plans: () => undefined,
      clock: { now: () => b.now, monotonic: () => 0 },
    });
    watch.setLimits([{ tenant: "shop", limits: [cpuAnHour(10n)] }]);
    await watch.look(5_000);
    await expect(watch.counting().count("j", lost)).rejects.toThrow("the connection is lost");
    await watch.look(5_000);
    expect([...watch.reached()]).toMatchObject([{ used: 10n }]);
  });
});

describe("a budget", () => {
  let b: Awaited<ReturnType<typeof bench>>;
  const shown = async () => (await b.alerts()).map(({ percent, amount }) => [percent, amount]);
  beforeEach(async () => {
    b = await bench();
  });
  afterEach(() => b[Symbol.asyncDispose]());

  test("is due an alert at each of its percents, until it is marked, and then never again that month", async () => {
    b.plans = budgeted(10_000_000);
    await b.post(usageAt(shop, ten, { cpuUs: 4n * second }));
    expect(await shown()).toEqual([]);
    await b.post(usageAt(shop, ten + 1, { cpuUs: 5n * second }));
    const [alert] = await b.alerts();
    expect(alert).toMatchObject({
      tenant: "shop",
      plan: "pro",
      percent: 50,
      amount: 5_000_000n,
      budget: 10_000_000n,
      start: Date.UTC(2026, 5),
      end: Date.UTC(2026, 6),
    });
    expect(await shown()).toHaveLength(1);
    await b.watch.mark([alert!]);
    expect(await shown()).toEqual([]);
    await b.post(usageAt(shop, ten + 2, { cpuUs: 20n * second }));
    expect(await shown()).toEqual([[100, 20_000_000n]]);
    await b.watch.mark(await b.alerts());
    b.restart();
    expect(await shown()).toEqual([]);
    await b.post(usageAt(shop, ten + 3, { cpuUs: 30n * second }));
    expect(await shown()).toEqual([]);
    b.now = Date.UTC(2026, 6, 1, 1);
    await b.post(usageAt(shop, b.now, { cpuUs: 36n * second }));
    expect(await shown()).toEqual([[50, 6_000_000n]]);
  });

  test("is due what was used before anybody watched: after a kill between commit and report", async () => {
    b.plans = budgeted(10_000_000);
    await b.ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 12n * second })]));
    expect((await shown()).map(([percent]) => percent)).toEqual([50, 100]);
    b.restart();
    expect((await shown()).map(([percent]) => percent)).toEqual([50, 100]);
  });

  test("follows the plans as they change", async () => {
    b.plans = budgeted(100_000_000);
    await b.post(usageAt(shop, ten, { cpuUs: 12n * second }));
    expect(await shown()).toEqual([]);
    b.plans = budgeted(12_000_000, [10, 200]);
    b.watch.plansChanged();
    expect((await shown()).map(([percent]) => percent)).toEqual([10]);
    b.plans = undefined;
    b.watch.plansChanged();
    expect(await shown()).toEqual([]);
  });

  test("of one that used nothing is due nothing, whatever the minimum is", async () => {
    b.plans = budgeted(1_000_000);
    await b.post(usageAt(shop, ten, {}));
    expect(await shown()).toEqual([]);
  });

  test("rule 9: a look takes no longer than it may: what is left comes in the next ones", async () => {
    b.plans = budgeted(1_000_000, [1]);
    const tenants = 3_000;
    await b.ledger.count(
      "j",
      stored(
        Array.from({ length: tenants }, (_, n) =>
          usageAt({ tenant: `t${n}`, instance: instanceId(n) }, ten, { cpuUs: second }),
        ),
      ),
    );
    let looks = 0;
    while (b.watch.due(tenants).length < tenants) {
      await b.watch.look(1);
      expect(++looks).toBeLessThan(5_000);
    }
    expect(looks).toBeGreaterThan(1);
  });
});

test("rule 8: what is watched is what the ledger holds, whatever is posted, however it is cut and whenever it is looked at", async () => {
  const report = fc.record({
    tenant: fc.constantFrom("a", "b"),
    instance: fc.integer({ min: 0, max: 2 }),
    at: fc.integer({ min: ten - hour, max: ten + 3 * hour }),
    cpuUs: fc.bigInt({ min: 0n, max: 10n ** 9n }),
  });
  const step = fc.oneof(
    fc.record({ kind: fc.constant("post" as const), reports: fc.array(report, { maxLength: 5 }) }),
    fc.record({ kind: fc.constant("look" as const), now: fc.integer({ min: ten, max: ten + 2 * hour }) }),
    fc.record({ kind: fc.constant("restart" as const) }),
  );
  const periods = [UsagePeriod.HOUR, UsagePeriod.DAY, UsagePeriod.MONTH];
  const limits = ["a", "b"].map((tenant) => ({
    tenant,
    limits: periods.map((period) => limit(UsageMeter.CPU_SECONDS, period, 0n)),
  }));
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      await using b = await bench();
      b.watch.setLimits(limits);
      for (const one of steps) {
        if (one.kind === "post") {
          await b.post(
            ...one.reports.map(({ tenant, instance, at, cpuUs }) =>
              usageAt({ tenant, instance: instanceId(instance + (tenant === "a" ? 0 : 10)) }, at, { cpuUs }),
            ),
          );
        } else if (one.kind === "look") {
          b.now = one.now;
          await b.watch.look(5_000);
        } else {
          b.restart();
          b.watch.setLimits(limits);
        }
      }
      const kept = await b.reached();
      b.restart();
      b.watch.setLimits(limits);
      // The one that was there all the time, and one that reads it all anew.
      expect(await b.reached()).toEqual(kept);
    }),
    { numRuns: isQuick ? 10 : 60 },
  );
});
