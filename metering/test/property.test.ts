/** Rule 8 under faults nobody thought of: fast-check prints the seed and the smallest stream that fails. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JournalRecord } from "@warren/store";
import fc from "fast-check";
import { type Meters, meterNames, meters, nothing, plus } from "../src/core/meters.ts";
import { windowOf } from "../src/core/window.ts";
import { Ledger } from "../src/ledger/ledger.ts";
import { hour, instanceId, stored, ten, transitionAt, usageAt } from "./events.ts";
import { MapLedger, type Total } from "./model.ts";

const tenants = ["a", "b", "c"] as const;
const receivedAt = ten + 100 * hour;

interface Life {
  readonly tenant: (typeof tenants)[number];
  readonly startAt: number;
  readonly ready: boolean;
  /** What each observation adds to the counters, and how long after the one before. */
  readonly steps: readonly { readonly afterMs: number; readonly adds: Meters }[];
}

const growth = (most: bigint) => fc.bigInt({ min: 0n, max: most });
const life: fc.Arbitrary<Life> = fc.record({
  tenant: fc.constantFrom(...tenants),
  startAt: fc.integer({ min: ten, max: ten + 10 * hour }),
  ready: fc.boolean(),
  steps: fc.array(
    fc.record({
      afterMs: fc.integer({ min: 0, max: 3 * hour }),
      adds: fc.record({
        cpuUs: growth(10n ** 9n),
        memoryByteSeconds: growth(2n ** 56n),
        wallMs: growth(10n ** 6n),
        frozenMs: growth(10n ** 6n),
      }),
    }),
    { minLength: 1, maxLength: 8 },
  ),
});

interface Told {
  /** May get lost without harm. */
  readonly intermediate: JournalRecord[];
  /** Transitions to EXITED: agents keep them until acknowledged. */
  readonly final: JournalRecord[];
  readonly truth: Record<string, Total>;
}

function tell(lives: readonly Life[]): Told {
  const told: Told = { intermediate: [], final: [], truth: {} };
  for (const [n, { tenant, startAt, ready, steps }] of lives.entries()) {
    const subject = { tenant, instance: instanceId(n) };
    let at = startAt;
    let counters: Meters = nothing;
    if (ready) told.intermediate.push(transitionAt(subject, at, "STARTING", "READY"));
    for (const { afterMs, adds } of steps) {
      at += afterMs;
      counters = plus(counters, adds);
      told.intermediate.push(usageAt(subject, at, counters));
    }
    told.final.push(transitionAt(subject, at, ready ? "READY" : "STARTING", "EXITED", { usage: counters }));
    const before = told.truth[tenant] ?? { ...nothing, starts: 0, instances: 0 };
    told.truth[tenant] = {
      ...plus(before, counters),
      starts: before.starts + (ready ? 1 : 0),
      instances: before.instances + 1,
    };
  }
  return told;
}

/** Some lost, some twice (under the same id and under another), in any order, in batches of any size. */
const faults = fc.array(life, { minLength: 1, maxLength: 5 }).chain((lives) => {
  const told = tell(lives);
  const all = [...told.intermediate, ...told.final];
  return fc
    .tuple(fc.subarray(told.intermediate), fc.subarray(all), fc.subarray(all))
    .chain(([kept, repeated, renamed]) => {
      const sent = [...kept, ...told.final, ...repeated];
      for (const record of renamed) sent.push({ ...record, id: `again:${record.id}` });
      return fc.record({
        truth: fc.constant(told.truth),
        arrived: fc.shuffledSubarray(sent, { minLength: sent.length }),
        batch: fc.integer({ min: 1, max: 12 }),
      });
    });
});

function batches<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size));
}

describe("rule 8: shuffled, repeated and lost intermediate events give the same totals", () => {
  test("in the core", () => {
    fc.assert(
      fc.property(faults, ({ truth, arrived, batch }) => {
        const ledger = new MapLedger();
        for (const some of batches(arrived, batch)) ledger.count(some, receivedAt);
        for (const [tenant, total] of Object.entries(truth)) expect(ledger.total(tenant)).toEqual(total);
        expect(ledger.kinds).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test("in the file, also when it is closed in between and the journal is read twice", () => {
    const directory = mkdtempSync(join(tmpdir(), "warren-metering-"));
    let run = 0;
    try {
      fc.assert(
        fc.property(faults, ({ truth, arrived, batch }) => {
          const place = join(directory, `${run++}`);
          const window = windowOf(undefined, undefined);
          for (let time = 0; time < 2; time++) {
            using ledger = Ledger.open(place);
            for (const some of batches(arrived, batch)) ledger.count("j", stored(some), receivedAt);
          }
          using ledger = Ledger.open(place);
          for (const cut of ["total", "day", "hour"] as const) {
            const rows = ledger.usage({ window, cut, limit: 10_000 });
            for (const [tenant, total] of Object.entries(truth)) {
              const own = rows.filter((row) => row.tenant === tenant);
              expect(meters((name) => own.reduce((sum, row) => sum + row.used[name], 0n))).toEqual(
                meters((name) => total[name]),
              );
              expect(own.reduce((sum, row) => sum + row.starts, 0n)).toBe(BigInt(total.starts));
              if (cut === "total") expect(own.map((row) => row.instances)).toEqual([BigInt(total.instances)]);
            }
          }
        }),
        { numRuns: 15 },
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

test("rule 8: no record, however broken, stops the ledger or skews what was counted", () => {
  const good = usageAt({ tenant: "a", instance: instanceId(0) }, ten, { cpuUs: 7n });
  const junk = fc.record({
    id: fc.string({ minLength: 1 }),
    subject: fc.constant("warren.events.a.usage"),
    headers: fc.record(
      {
        "ce-type": fc.oneof(fc.constantFrom("dev.warren.usage", "dev.warren.transition"), fc.string()),
        "ce-time": fc.oneof(fc.constant("2026-06-01T10:00:00Z"), fc.string()),
      },
      { requiredKeys: [] },
    ),
    data: fc.oneof(
      fc.uint8Array(),
      fc.json().map((json) => new TextEncoder().encode(json)),
      fc
        .record({
          instance: fc.constant({ id: instanceId(0), tenant: "a" }),
          usage: fc.dictionary(
            fc.constantFrom(...meterNames),
            fc.oneof(
              fc.constantFrom("-1", "1.5", "x", "NaN", "18446744073709551616", true, [], {}),
              fc.double({ max: -1e-9, noNaN: true }),
            ),
          ),
        })
        .map((value) => new TextEncoder().encode(JSON.stringify(value))),
    ),
  });
  fc.assert(
    fc.property(fc.array(junk, { maxLength: 10 }), (records) => {
      const ledger = new MapLedger().count([good, ...records, good], receivedAt);
      expect(ledger.total("a").instances).toBe(1);
      expect(ledger.kinds.every((kind) => kind !== "failed")).toBe(true);
      expect(ledger.total("a").cpuUs).toBe(7n);
    }),
    { numRuns: 300 },
  );
});
