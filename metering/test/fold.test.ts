/** Rule 9: what is long gone is folded, and whoever bills does not see it. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { ConfigError } from "@warren/common/config";
import { isQuick } from "@warren/common/testing/quick";
import type { JournalRecord } from "@warren/store";
import fc from "fast-check";
import type { Meters } from "../src/core/meters.ts";
import { dayMs } from "../src/core/plausible.ts";
import { type Cut, type Window, windowOf } from "../src/core/window.ts";
import type { Folded, Ledger } from "../src/ledger/ledger.ts";
import { openLedger, readLedger } from "../src/ledger/open.ts";
import type { LedgerRow } from "../src/ledger/rows.ts";
import { readSnapshot, writeSnapshot } from "../src/snapshot/file.ts";
import { hour, instanceId, nextId, stored, ten, trafficAt, transitionAt, usageAt } from "./events.ts";
import { startChild, temporaryDirectory } from "./harness.ts";
import { type Ledgers, ledgerKinds } from "./ledgers.ts";

/** The shortest that there is. */
const foldAfter = 15;
/** Days after which what was heard of no more is folded, and all of its hours. */
const gone = foldAfter + 5;
const never = { foldAfter: 100_000 };
const everything = windowOf(undefined, undefined);
const at = (day: number, hours = 0) => ten + day * dayMs + hours * hour;

interface Told {
  readonly storedAt: number;
  readonly record: JournalRecord;
}

const life = (tenant: string, n: number, day = 0) => ({ tenant, instance: instanceId(n, at(day)) });
const used = (subject: ReturnType<typeof life>, when: number, usage: Partial<Meters>): Told => ({
  storedAt: when,
  record: usageAt(subject, when, usage),
});
const ready = (subject: ReturnType<typeof life>, when: number): Told => ({
  storedAt: when,
  record: transitionAt(subject, when, "STARTING", "READY"),
});
const traffic = (gateway: string, tenant: string, when: number, requests: bigint): Told => ({
  storedAt: when,
  record: trafficAt(tenant, when, { gateway, requests }),
});

/** One that lives all the time, and is heard of each day. */
const old = life("steady", 7);
const days = (from: number, until: number): Told[] =>
  Array.from({ length: until - from }, (_, n) =>
    used(old, at(from + n), { cpuUs: BigInt(from + n + 1), wallMs: 5n }),
  );

const count = async (ledger: Ledger, told: readonly Told[]) => {
  let quarantined = 0;
  for (const { storedAt, record } of told) {
    quarantined += (await ledger.count("j", stored([record], { storedAt }))).newlyQuarantined;
  }
  return quarantined;
};

async function foldAll(ledger: Ledger): Promise<Folded> {
  const sum = { accounts: 0, postings: 0 };
  for (;;) {
    const { accounts, postings, more } = await ledger.fold();
    sum.accounts += accounts;
    sum.postings += postings;
    if (!more) return { ...sum, more };
  }
}

const cuts = ["hour", "day", "month", "total"] as const satisfies readonly Cut[];

/** What is billed, by every cut. */
const billed = async (ledger: Ledger, window: Window = everything) => {
  const all = await Promise.all(cuts.map((cut) => ledger.usage({ window, cut, limit: 100_000 })));
  return all.map((rows) => rows.map(({ instances: _, ...rest }) => rest));
};

const instancesOf = async (ledger: Ledger, tenant: string, cut: Cut, window = everything) =>
  (await ledger.usage({ tenant, window, cut, limit: 100_000 })).map(({ instances }) => Number(instances));

const rowsOf = (rows: AsyncIterable<LedgerRow>) => Array.fromAsync(rows);

for (const { kind, openLedgers, here } of ledgerKinds)
  describe.skipIf(!here)(`rule 9: folding, ${kind}`, () => {
    let ledgers: Ledgers;
    let made = 0;
    let place: string;
    const open = (options = { foldAfter }) => ledgers.open(place, options);
    const rows = async (name = place) => rowsOf(readLedger(await ledgers.at(name)));
    const accounts = async () =>
      (await rows()).flatMap((row) => (row.table === "account" && row.tenant !== "" ? row.account : []));

    beforeAll(async () => {
      ledgers = await openLedgers();
    }, 30_000);
    afterAll(() => ledgers[Symbol.asyncDispose]());
    beforeEach(() => {
      place = `l${++made}`;
    });

    test("who was not heard of for the horizon goes: all totals and starts stay, an instance counts where it was first seen", async () => {
      await using ledger = await open();
      const told = [1, 2, 3].flatMap((n) => [
        ready(life("shop", n), at(0, n)),
        used(life("shop", n), at(0, n), { cpuUs: 3n, memoryByteSeconds: 2n ** 60n }),
        used(life("shop", n), at(0, n + 5), { cpuUs: 10n, wallMs: 9n }),
      ]);
      await count(ledger, told);
      const before = await instancesOf(ledger, "shop", "hour");
      expect(before).toEqual([1, 1, 1, 1, 1, 1]);
      await count(ledger, days(1, gone - 3));
      expect(await ledger.fold()).toEqual({ accounts: 0, postings: 0, more: false });
      await count(ledger, days(gone - 3, gone + 1));
      const unfolded = await billed(ledger);
      expect(await foldAll(ledger)).toEqual({ accounts: 3, postings: 6, more: false });
      expect(await billed(ledger)).toEqual(unfolded);
      expect(await accounts()).toEqual([old.instance]);
      expect(await instancesOf(ledger, "shop", "hour")).toEqual([1, 1, 1, 0, 0, 0]);
      for (const cut of ["day", "month", "total"] as const) {
        expect(await instancesOf(ledger, "shop", cut)).toEqual([3]);
      }
      expect(await ledger.fold()).toEqual({ accounts: 0, postings: 0, more: false });
      expect(await ledger.tenants("", 10)).toEqual(["shop", "steady"]);
    });

    test("one that lives for months keeps its account and is counted once, whatever of it is folded", async () => {
      await using ledger = await open();
      await count(ledger, days(0, 30));
      await foldAll(ledger);
      await count(ledger, days(30, 70));
      const { accounts: none, postings } = await foldAll(ledger);
      expect(none).toBe(0);
      expect(postings).toBeGreaterThan(30);
      expect(await accounts()).toEqual([old.instance]);
      // Its first hour, the folded ones and those that are not.
      expect((await rows()).filter(({ table }) => table === "posting").length).toBe(1 + 70);
      expect(await instancesOf(ledger, "steady", "total")).toEqual([1]);
      // In the second month it is seen in the hours that are not folded.
      expect(await instancesOf(ledger, "steady", "month")).toEqual([1, 1, 1]);
      expect((await instancesOf(ledger, "steady", "day")).slice(0, 30)).toEqual([1, ...Array(29).fill(0)]);
      const [total] = await ledger.usage({ window: everything, cut: "total", limit: 1 });
      expect(total).toMatchObject({ used: { cpuUs: 70n, wallMs: 5n } });
      // What comes late for an hour that was folded is folded too, also where that was before the first.
      const late = { storedAt: at(69), record: usageAt(old, at(-1), { cpuUs: 100n }) };
      const folded = { storedAt: at(69), record: usageAt(old, at(3), { cpuUs: 110n }) };
      expect(await count(ledger, [late, folded])).toBe(0);
      expect(await instancesOf(ledger, "steady", "total")).toEqual([1]);
      const unfolded = await billed(ledger);
      expect((await foldAll(ledger)).postings).toBe(2);
      expect(await billed(ledger)).toEqual(unfolded);
      expect((await instancesOf(ledger, "steady", "day")).slice(0, 30)).toEqual([1, ...Array(29).fill(0)]);
      // When it goes at last, its first hour is that of the folded row.
      await count(
        ledger,
        Array.from({ length: gone + 2 }, (_, n) => used(life("new", 1, 69), at(70 + n), { wallMs: 1n })),
      );
      expect((await foldAll(ledger)).accounts).toBe(1);
      expect(await instancesOf(ledger, "steady", "total")).toEqual([1]);
      expect((await instancesOf(ledger, "steady", "day"))[0]).toBe(1);
    });

    test("what comes of one that may have been folded is refused, folded or not, and of no other", async () => {
      await using ledger = await open();
      const late = life("shop", 1);
      await count(ledger, [used(late, at(0), { cpuUs: 5n })]);
      await count(ledger, days(0, gone));
      const again = () => [
        used(late, at(gone), { cpuUs: 5n }),
        used(late, at(gone), { cpuUs: 900n }),
        { storedAt: at(gone), record: transitionAt(late, at(gone), "READY", "EXITED", { id: nextId() }) },
      ];
      const before = await billed(ledger);
      expect(await count(ledger, again())).toBe(3);
      expect((await foldAll(ledger)).accounts).toBe(1);
      expect(await count(ledger, again())).toBe(3);
      expect(await billed(ledger)).toEqual(before);
      expect(await ledger.quarantineCounts()).toEqual(new Map([["too-late", 6]]));
      // Neither one that is new, nor one that is as old and was heard of all the time.
      const fresh = [used(life("shop", 2, gone), at(gone), { cpuUs: 1n }), ...days(gone, gone + 1)];
      expect(await count(ledger, fresh)).toBe(0);
    });

    test("a ledger that is younger than the horizon can have folded nothing: it counts who is older", async () => {
      await using ledger = await open();
      const before = used(life("shop", 1, -100), at(3), { cpuUs: 5n });
      expect(await count(ledger, [...days(0, 3), before])).toBe(0);
    });

    test("a journal's clock that is years ahead for an hour folds nothing", async () => {
      await using ledger = await open();
      await count(ledger, [used(life("shop", 1), at(0), { cpuUs: 5n }), ...days(0, 5)]);
      const ahead = [0, 1, 2].map((n) => used(life("shop", 2), at(2_000 + n), { cpuUs: 1n }));
      await count(ledger, ahead);
      expect(await foldAll(ledger)).toEqual({ accounts: 0, postings: 0, more: false });
      expect(await count(ledger, [used(life("shop", 1), at(6), { cpuUs: 6n })])).toBe(0);
    });

    test("a gateway's counter goes on after its tenant was idle for months; a silent gateway goes", async () => {
      await using ledger = await open();
      const [busy, left] = [`gw-${instanceId(1)}`, `gw-${instanceId(2)}`];
      const reserve = `gw-${instanceId(3)}`;
      await count(ledger, [traffic(busy, "idle", at(0), 100n), traffic(left, "idle", at(0), 40n)]);
      await count(
        ledger,
        Array.from({ length: 90 }, (_, n) => traffic(busy, "shop", at(n), BigInt(n))),
      );
      const before = await billed(ledger);
      expect((await foldAll(ledger)).accounts).toBe(1);
      expect(await billed(ledger)).toEqual(before);
      expect(await accounts()).toEqual([`${busy}/0/idle`, `${busy}/0/shop`]);
      expect(await count(ledger, [traffic(busy, "idle", at(90), 103n)])).toBe(0);
      // That it was there is remembered for longer; one in reserve was never heard of.
      expect(
        await count(ledger, [traffic(left, "idle", at(90), 41n), traffic(left, "new", at(90), 1n)]),
      ).toBe(2);
      expect(await count(ledger, [traffic(reserve, "idle", at(90), 7n)])).toBe(0);
      const [idle] = await ledger.usage({ tenant: "idle", window: everything, cut: "total", limit: 1 });
      expect(idle).toMatchObject({ used: { requests: 150n }, instances: 0n });
      // In the end nothing is left of it, and its id says that it is older.
      await count(
        ledger,
        Array.from({ length: 80 }, (_, n) => traffic(busy, "shop", at(91 + n), BigInt(91 + n))),
      );
      await foldAll(ledger);
      const known = async () => (await rows()).filter((row) => row.table === "account" && row.tenant === "");
      expect((await known()).length).toBe(2);
      expect(await count(ledger, [traffic(left, "idle", at(171), 50n)])).toBe(1);
    }, 20_000);

    test("sums of folded instances pass 2^64, in a snapshot too", async () => {
      using temporary = temporaryDirectory();
      const most = 2n ** 64n - 1n;
      const large = (n: number) =>
        used({ tenant: "shop", instance: instanceId(n, Date.UTC(2022, 0)) }, at(0), {
          memoryByteSeconds: most,
          cpuUs: 2n,
        });
      const from = place;
      const wanted = { used: { memoryByteSeconds: 5n * most, cpuUs: 10n }, instances: 5n };
      const shop = { tenant: "shop", window: everything, cut: "total", limit: 1 } as const;
      {
        await using ledger = await open();
        await count(ledger, [large(1), large(2), ...days(1, gone + 1)]);
        await foldAll(ledger);
        expect(await ledger.usage(shop)).toMatchObject([{ used: { memoryByteSeconds: 2n * most } }]);
      }
      {
        // Three more of that hour, by way of a snapshot.
        place = "other";
        await using ledger = await open(never);
        await writeSnapshot(`${temporary.path}/s`, readLedger(await ledgers.at(from)), ten);
        await ledger.restore(readSnapshot(`${temporary.path}/s`));
        expect(await rows()).toEqual(await rows(from));
        await count(ledger, [large(3), large(4), large(5)]);
        expect(await ledger.usage(shop)).toMatchObject([wanted]);
      }
      await using ledger = await open();
      // They were counted on the last day of the ledger.
      const next = used(life("new", 1, 30), at(30), {});
      await count(ledger, [
        next,
        ...Array.from({ length: gone }, (_, n) => used(life("new", 1, 30), at(31 + n), {})),
      ]);
      expect((await foldAll(ledger)).accounts).toBeGreaterThanOrEqual(3);
      expect(await ledger.usage(shop)).toMatchObject([wanted]);
    });

    test("a longer horizon than before unfolds nothing, a shorter one folds more; one that is too short is refused", async () => {
      const told = [used(life("shop", 1), at(0), { cpuUs: 5n }), ...days(0, gone + 1)];
      {
        await using ledger = await open(never);
        await count(ledger, told);
        expect((await foldAll(ledger)).accounts).toBe(0);
      }
      {
        await using ledger = await open();
        expect((await foldAll(ledger)).accounts).toBe(1);
      }
      await using ledger = await open(never);
      expect(await instancesOf(ledger, "shop", "total")).toEqual([1]);
      for (const days of [14, 0, Number.NaN]) {
        const short = openLedger({ ...(await ledgers.at("short")), foldAfter: days });
        await expect(short).rejects.toBeInstanceOf(ConfigError);
      }
    });

    test("killed in the middle, at any moment: the totals stay, and the next one goes on", async () => {
      const most = 1_500;
      const told = Array.from({ length: most }, (_, n) => [
        ready(life(`t${n % 7}`, 100 + n), at(0, n % 20)),
        used(life(`t${n % 7}`, 100 + n), at(1, n % 20), { cpuUs: BigInt(n) }),
      ]).flat();
      let before: Awaited<ReturnType<typeof billed>>;
      {
        await using ledger = await open();
        for (let from = 0; from < told.length; from += 500) {
          const some = told.slice(from, from + 500);
          await ledger.count(
            "j",
            stored(
              some.map(({ record }) => record),
              { storedAt: at(2) },
            ),
          );
        }
        await count(ledger, days(0, gone + 3));
        before = await billed(ledger);
      }
      let folded = 0;
      for (const after of [1, 3, 2]) {
        await using child = startChild("fold.ts", { ...(await ledgers.at(place)), foldAfter });
        for (let n = 0; n < after; n++) await child.line();
        await child.kill9();
        await using ledger = await open();
        expect(await billed(ledger)).toEqual(before);
        folded = most + 1 - (await accounts()).length;
        expect(folded).toBeGreaterThan(0);
      }
      await using ledger = await open();
      expect((await foldAll(ledger)).accounts).toBe(most - folded);
      expect(await billed(ledger)).toEqual(before);
      expect(await instancesOf(ledger, "t0", "total")).toEqual([Math.ceil(most / 7)]);
    }, 60_000);

    test("at any moment, in any order: the same totals as unfolded, and in the end the same rows", async () => {
      const numRuns = kind === "sqlite" && !isQuick ? 20 : 5;
      await fc.assert(
        fc.asyncProperty(stories, fc.infiniteStream(fc.nat({ max: 6 })), async (story, dice) => {
          const [now, later, plain] = [`l${++made}`, `l${++made}`, `l${++made}`];
          await using often = await ledgers.open(now, { foldAfter });
          await using atLast = await ledgers.open(later, { foldAfter });
          await using unfolded = await ledgers.open(plain, never);
          for (const batch of byDay(tell(story))) {
            for (const ledger of [often, atLast, unfolded]) {
              const { newlyQuarantined } = await ledger.count("j", batch);
              expect(newlyQuarantined).toBe(0);
            }
            if (dice.next().value === 0) await often.fold();
          }
          const expected = await billed(unfolded);
          expect(await billed(often)).toEqual(expected);
          await foldAll(often);
          expect(await billed(often)).toEqual(expected);
          expect(await often.fold()).toEqual({ accounts: 0, postings: 0, more: false });
          await foldAll(atLast);
          expect(billedRows(await rows(now))).toEqual(billedRows(await rows(later)));
          for (const tenant of await unfolded.tenants("", 10)) {
            const total = await instancesOf(unfolded, tenant, "total");
            expect(await instancesOf(often, tenant, "total")).toEqual(total);
          }
        }),
        // Should it fail, a smaller one is looked for within the test's time.
        { numRuns, interruptAfterTimeLimit: 60_000 },
      );
    }, 120_000);
  });

/** Without what says when it is to be folded: that may differ where a late posting came before or after. */
const billedRows = (all: readonly LedgerRow[]) =>
  all.flatMap((row): unknown[] => {
    if (row.table === "posting") return [row];
    if (row.table !== "account") return [];
    const { account, tenant, started, used } = row;
    return [{ account, tenant, started, used }];
  });

/** Lives over three months, told at most some days late, with silences shorter than the horizon. */
const stories = fc.array(
  fc.record({
    tenant: fc.constantFrom("a", "b"),
    startDay: fc.integer({ min: 0, max: 60 }),
    steps: fc.array(
      fc.record({
        afterHours: fc.integer({ min: 0, max: 8 * 24 }),
        lateHours: fc.integer({ min: 0, max: 5 * 24 }),
        twice: fc.boolean(),
        grows: fc.bigInt({ min: 0n, max: 1_000n }),
      }),
      { minLength: 1, maxLength: 6 },
    ),
    gateway: fc.boolean(),
  }),
  { minLength: 1, maxLength: 8 },
);

type Story = typeof stories extends fc.Arbitrary<infer T> ? T : never;

function tell(lives: Story): Told[] {
  const gateway = `gw-${instanceId(99)}`;
  const told: Told[] = days(0, 95);
  for (let day = 0; day < 95; day++) told.push(traffic(gateway, "ticks", at(day), BigInt(day)));
  for (const [n, { tenant, startDay, steps, gateway: ofGateway }] of lives.entries()) {
    let when = at(startDay);
    let counted = 0n;
    const subject = life(tenant, 100 + n, startDay);
    if (!ofGateway) told.push(ready(subject, when));
    for (const { afterHours, lateHours, twice, grows } of steps) {
      when += afterHours * hour;
      counted += grows;
      const one = ofGateway
        ? trafficAt(tenant, when, { gateway, run: n, requests: counted })
        : usageAt(subject, when, { cpuUs: counted });
      told.push({ storedAt: when + lateHours * hour, record: one });
      if (twice) told.push({ storedAt: when + lateHours * hour + dayMs, record: { ...one, id: nextId() } });
    }
  }
  return told;
}

/** As a journal has them, in the order in which it took them; a batch is a day's. */
function byDay(told: readonly Told[]) {
  const sorted = told.toSorted((a, b) => a.storedAt - b.storedAt);
  const all = sorted.flatMap(({ storedAt, record }, after) => stored([record], { storedAt, after }));
  return Map.groupBy(all, ({ storedAt }) => Math.floor(storedAt / dayMs)).values();
}
