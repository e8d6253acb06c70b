/** What every kind of ledger keeps, and that a batch is counted whole or not at all. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nothing, plus } from "../src/core/meters.ts";
import { mostRuns } from "../src/core/seen.ts";
import { type Cut, windowOf } from "../src/core/window.ts";
import type { Ledger } from "../src/ledger/ledger.ts";
import { usagePages } from "../src/ledger/pages.ts";
import { quarantineRows } from "../src/ledger/quarantine.ts";
import { batches, faults } from "./arbitrary.ts";
import {
  hour,
  instanceId,
  storageAt,
  stored,
  ten,
  trafficAt,
  transitionAt,
  usageAt,
  used,
} from "./events.ts";
import { type Ledgers, ledgerKinds } from "./ledgers.ts";

const shop = { tenant: "shop", instance: instanceId(1) };
const everything = windowOf(undefined, undefined);
const all = { window: everything, cut: "total", limit: 10 } as const;

for (const { kind, openLedgers, here } of ledgerKinds)
  describe.skipIf(!here)(kind, () => {
    let ledgers: Ledgers;
    let made = 0;
    let place: string;
    const open = () => ledgers.open(place);
    const usageOf = async (ledger: Ledger) => (await ledger.usage(all))[0]?.used;

    beforeAll(async () => {
      ledgers = await openLedgers();
    }, 30_000);
    afterAll(() => ledgers[Symbol.asyncDispose]());
    beforeEach(() => {
      place = `l${++made}`;
    });

    describe("rule 8: counting", () => {
      test("positions are kept per journal, with what was counted", async () => {
        {
          await using ledger = await open();
          await ledger.count("a", stored([usageAt(shop, ten, { cpuUs: 5n }, "n1:s:9")], { after: 41 }));
          await ledger.count("b", stored([usageAt(shop, ten, { cpuUs: 6n }, "n1:s:10")]));
        }
        await using ledger = await open();
        expect(await ledger.position("a")).toEqual({ seq: 42n, recordId: "n1:s:9" });
        expect(await ledger.position("b")).toEqual({ seq: 1n, recordId: "n1:s:10" });
        expect(await ledger.position("c")).toBeUndefined();
        expect(await ledger.usage(all)).toMatchObject([{ tenant: "shop", used: { cpuUs: 6n } }]);
      });

      test("a batch that cannot be written whole is not written at all", async () => {
        await using ledger = await open();
        await ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 5n })]));
        const [good] = stored([usageAt(shop, ten, { cpuUs: 9n })]);
        await expect(ledger.count("j", [{ ...good!, seq: 2n ** 70n }])).rejects.toThrow();
        expect(await ledger.usage(all)).toMatchObject([{ used: { cpuUs: 5n } }]);
        expect((await ledger.position("j"))?.seq).toBe(1n);
        await ledger.count("j", [good!]);
        expect(await usageOf(ledger)).toMatchObject({ cpuUs: 9n });
      });

      test("sums above 2^53, 2^63 and 2^64 are right to the last byte-second", async () => {
        await using ledger = await open();
        const most = 2n ** 64n - 1n;
        // Old enough that so much memory is possible.
        const old = (n: number) => ({ tenant: "shop", instance: instanceId(n, Date.UTC(2022, 0)) });
        const records = [1, 2, 3].map((n) => usageAt(old(n), ten, { memoryByteSeconds: most }));
        await ledger.count("j", stored(records));
        await ledger.count("j", stored([usageAt(shop, ten, { memoryByteSeconds: 2n ** 53n + 1n })]));
        expect((await usageOf(ledger))?.memoryByteSeconds).toBe(3n * most + 2n ** 53n + 1n);
      });

      test("one instance's hour may pass 2^63 in two steps", async () => {
        await using ledger = await open();
        const old = { tenant: "shop", instance: instanceId(1, Date.UTC(2022, 0)) };
        for (const memoryByteSeconds of [2n ** 63n - 1n, 2n ** 63n + 5n]) {
          await ledger.count("j", stored([usageAt(old, ten, { memoryByteSeconds })]));
        }
        expect((await usageOf(ledger))?.memoryByteSeconds).toBe(2n ** 63n + 5n);
      });

      test("volumes count while nothing runs, each copy for itself; a copy is no instance", async () => {
        await using ledger = await open();
        const [first, second] = [instanceId(7), instanceId(8)];
        const records = [
          storageAt("shop", ten, { volume: first, byteSeconds: 100n }),
          storageAt("shop", ten, { volume: first, byteSeconds: 2n ** 40n }),
          storageAt("shop", ten, { volume: first, byteSeconds: 50n }), // an older one, late
          storageAt("shop", ten, { volume: second, byteSeconds: 7n }), // restored on another node
        ];
        for (let time = 0; time < 2; time++) await ledger.count("j", stored(records));
        expect(await ledger.usage(all)).toEqual([
          {
            tenant: "shop",
            bucket: 0,
            used: used({ volumeByteSeconds: 2n ** 40n + 7n }),
            starts: 0n,
            instances: 0n,
          },
        ]);
        await ledger.count("j", stored([storageAt("shop", ten, { volume: "none", byteSeconds: 1n })]));
        await ledger.count("j", stored([storageAt("shop", ten, { volume: second, byteSeconds: 2n ** 63n })]));
        expect(await ledger.quarantineCounts()).toEqual(
          new Map([
            ["bad-volume", 1],
            ["usage-implausible", 1],
          ]),
        );
      });

      test("what instances and gateways count is one row; gateways are no instances", async () => {
        await using ledger = await open();
        const gateway = `gw-${instanceId(9)}`;
        await ledger.count(
          "j",
          stored([
            transitionAt(shop, ten, "STARTING", "READY", { usage: { cpuUs: 3n, wallMs: 5n, thaws: 1n } }),
            trafficAt("shop", ten, { gateway, requests: 10n, bytesOut: 2n ** 40n }),
            trafficAt("shop", ten, { gateway, requests: 12n, bytesOut: 2n ** 40n + 1n }),
            trafficAt("shop", ten, { gateway, run: 1, requests: 5n }),
          ]),
        );
        expect(await ledger.usage(all)).toEqual([
          {
            tenant: "shop",
            bucket: 0,
            used: used({ cpuUs: 3n, wallMs: 5n, thaws: 1n, requests: 17n, bytesOut: 2n ** 40n + 1n }),
            starts: 1n,
            instances: 1n,
          },
        ]);
      });
    });

    describe("rule 8: repeats", () => {
      test("are known by their ids, also after a restart, and are not counted", async () => {
        const records = [1n, 2n, 3n].map((n) => usageAt(shop, ten, { cpuUs: n }, `n1:s:${n}`));
        {
          await using ledger = await open();
          expect(await ledger.count("j", stored(records))).toMatchObject({ duplicates: 0 });
        }
        await using ledger = await open();
        expect(await ledger.count("j", stored(records))).toMatchObject({ duplicates: 3 });
        expect(await ledger.missing()).toBe(0);
        expect(await usageOf(ledger)).toMatchObject({ cpuUs: 3n });
      });

      test("a gap is missing until it comes", async () => {
        await using ledger = await open();
        const record = (n: number) => usageAt(shop, ten, { cpuUs: BigInt(n) }, `n1:s:${n}`);
        await ledger.count("j", stored([record(1), record(5), record(9)]));
        expect(await ledger.missing()).toBe(6);
        await ledger.count("j", stored([record(3), record(2), record(4)]));
        expect(await ledger.missing()).toBe(3);
      });

      test("the runs kept are bounded: those heard of least lately go first", async () => {
        await using ledger = await open();
        const heard = (from: number, count: number, storedAt: number) =>
          stored(
            Array.from({ length: count }, (_, n) => usageAt(shop, ten, {}, `n${from + n}:s:1`)),
            { storedAt },
          );
        for (let from = 0; from < mostRuns; from += 2_500) {
          await ledger.count("j", heard(from, 2_500, ten + from));
        }
        await ledger.count("j", heard(0, 2, ten + hour));
        await ledger.count("j", heard(mostRuns, 2, ten + 2 * hour));
        expect(await ledger.count("j", heard(0, 2, ten + 3 * hour))).toMatchObject({ duplicates: 2 });
        // Of those that were stored together, the first by name went: which of them does not matter.
        expect(await ledger.count("j", heard(2, 2_498, ten + 3 * hour))).toMatchObject({ duplicates: 2_496 });
      });
    });

    describe("quarantine", () => {
      const odd = (from: number, to: number) =>
        stored(
          // Ids of no run: each record comes to the quarantine again.
          Array.from({ length: to - from }, (_, n) => usageAt(shop, 0, {}, `odd-${from + n}`)),
          { after: from },
        );

      test("keeps the newest whole, counts all, and counts none twice", async () => {
        await using ledger = await open();
        expect((await ledger.count("j", odd(0, 5))).newlyQuarantined).toBe(5);
        expect((await ledger.count("j", odd(0, 7))).newlyQuarantined).toBe(2);
        expect(await ledger.quarantineCounts()).toEqual(new Map([["time-past", 7]]));
        for (let n = 0; n < 4; n++) await ledger.count("j", odd(0, 7));
        await ledger.count("j", odd(7, 7 + quarantineRows));
        expect((await ledger.quarantineCounts()).get("time-past")).toBe(7 + quarantineRows);
        // The first seven are gone, and would be new; the others would not.
        expect((await ledger.count("j", odd(7, 20))).newlyQuarantined).toBe(0);
        expect((await ledger.count("j", odd(0, 7))).newlyQuarantined).toBe(7);
      });
    });

    test("tenants are listed in pages, and their usage read up to one of them", async () => {
      await using ledger = await open();
      const names = ["a", "a-b", "a1", "ab", "b"];
      const reports = names.flatMap((tenant, n) =>
        [0, 1, 2].map((later) =>
          usageAt({ tenant, instance: instanceId(n) }, ten + later * hour, { cpuUs: BigInt(later + 1) }),
        ),
      );
      await ledger.count("j", stored(reports));
      expect(await ledger.tenants("", 10)).toEqual(names);
      expect(await ledger.tenants("a-b", 2)).toEqual(["a1", "ab"]);
      expect(await ledger.tenants("b", 2)).toEqual([]);
      const seen: string[] = [];
      for await (const rows of usagePages(ledger, { afterTenant: "a", window: everything, cut: "hour" }))
        seen.push(...rows.map(({ tenant }) => tenant));
      expect(seen).toEqual(names.slice(1).flatMap((name) => [name, name, name]));
      const some = await ledger.usage({ ...all, untilTenant: "a1" });
      expect(some.map(({ tenant }) => tenant)).toEqual(["a", "a-b", "a1"]);
    });

    test("alerts are remembered once, by month, and forgotten long after it", async () => {
      const month = Date.UTC(2026, 5);
      {
        await using ledger = await open();
        await ledger.markAlerts(month, [
          { tenant: "shop", percent: 50 },
          { tenant: "blog", percent: 100 },
        ]);
        await ledger.markAlerts(month, [{ tenant: "shop", percent: 50 }]);
      }
      await using ledger = await open();
      const marks = (await ledger.alerts(month)).map(({ tenant, percent }) => `${tenant} ${percent}`).sort();
      expect(marks).toEqual(["blog 100", "shop 50"]);
      expect(await ledger.alerts(Date.UTC(2026, 6))).toEqual([]);
      await ledger.markAlerts(Date.UTC(2026, 11), []);
      expect(await ledger.alerts(month)).toEqual([]);
    });

    describe("cut", () => {
      const at = [Date.UTC(2026, 0, 31, 23), Date.UTC(2026, 1, 1, 0), Date.UTC(2026, 1, 28, 23)];
      const counted = async () => {
        const ledger = await open();
        const records = ["a", "b"].flatMap((tenant, t) =>
          at.map((time, n) =>
            usageAt({ tenant, instance: instanceId(t, at[0]) }, time, { cpuUs: 10n ** BigInt(n) }),
          ),
        );
        await ledger.count("j", stored(records, { storedAt: at[2] }));
        return ledger;
      };

      test.each([
        ["hour", [1n, 9n, 90n]],
        ["day", [1n, 9n, 90n]],
        ["month", [1n, 99n]],
        ["total", [100n]],
      ] as const)("by %s", async (cut, cpuUs) => {
        await using ledger = await counted();
        const rows = await ledger.usage({ window: everything, cut, tenant: "b", limit: 10 });
        expect(rows.map(({ used }) => used.cpuUs)).toEqual([...cpuUs]);
        expect(rows.map(({ instances }) => instances)).toEqual(cpuUs.map(() => 1n));
        if (cut === "month") expect(rows[0]?.bucket).toBe((2026 - 1970) * 12);
      });

      test.each(["hour", "day", "month", "total"] as const)("by %s, in pages", async (cut: Cut) => {
        await using ledger = await counted();
        const whole = await ledger.usage({ window: everything, cut, limit: 100 });
        const paged: typeof whole = [];
        for (;;) {
          const page = await ledger.usage({ window: everything, cut, limit: 2, after: paged.at(-1) });
          paged.push(...page);
          if (page.length === 0) break;
        }
        expect(paged).toEqual(whole);
      });
    });

    test("rule 8: shuffled, repeated and lost intermediate events, read twice, with restarts between: the same totals", async () => {
      await fc.assert(
        fc.asyncProperty(faults, async ({ truth, arrived, batch }) => {
          place = `l${++made}`;
          for (let time = 0; time < 2; time++) {
            await using ledger = await open();
            for (const some of batches(arrived, batch)) await ledger.count("j", stored(some));
          }
          await using ledger = await open();
          for (const cut of ["total", "month", "day", "hour"] as const) {
            const rows = await ledger.usage({ window: everything, cut, limit: 10_000 });
            for (const [tenant, total] of Object.entries(truth)) {
              const own = rows.filter((row) => row.tenant === tenant);
              const sum = own.reduce(
                (sum, row) => ({ ...plus(sum, row.used), starts: sum.starts + Number(row.starts) }),
                { ...nothing, starts: 0 },
              );
              const { instances, ...expected } = total;
              expect(sum).toEqual(expected);
              if (cut === "total") expect(own.map((row) => Number(row.instances))).toEqual([instances]);
            }
          }
        }),
        { numRuns: 15 },
      );
    }, 60_000);
  });
