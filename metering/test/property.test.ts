/** Rule 8 under faults nobody thought of: fast-check prints the seed and the smallest stream that fails. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { meterNames } from "../src/core/meters.ts";
import { mostRanges, Seen } from "../src/core/seen.ts";
import { batches, faults, storedAt } from "./arbitrary.ts";
import { instanceId, ten, usageAt } from "./events.ts";
import { MapLedger } from "./model.ts";

test("rule 8: shuffled, repeated and lost intermediate events give the same totals", () => {
  fc.assert(
    fc.property(faults, ({ truth, arrived, batch }) => {
      const ledger = new MapLedger();
      for (const some of batches(arrived, batch)) ledger.count(some, storedAt);
      for (const [tenant, total] of Object.entries(truth)) expect(ledger.total(tenant)).toEqual(total);
      expect(ledger.kinds).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

test("rule 8: what was seen of a run is known, whatever the order, up to the bound", () => {
  const seqs = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 120 });
  fc.assert(
    fc.property(seqs, fc.integer({ min: 1, max: 9 }), (all, reopen) => {
      const truth = new Set<number>();
      let seen = Seen.parse();
      for (const [n, seq] of all.entries()) {
        expect(seen.add(seq)).toBe(!truth.has(seq));
        truth.add(seq);
        if (n % reopen === 0) seen = Seen.parse(seen.toString());
      }
      const sorted = [...truth].sort((a, b) => a - b);
      const span = sorted.length === 0 ? 0 : sorted.at(-1)! - sorted[0]! + 1;
      expect(seen.missing).toBe(span - truth.size);
    }),
    { numRuns: 500 },
  );
});

test("rule 9: of a run with many gaps the newest ranges are kept", () => {
  const seen = Seen.parse();
  for (let n = 0; n < 10 * mostRanges; n++) expect(seen.add(2 * n)).toBe(true);
  expect(seen.toString().split(",")).toHaveLength(mostRanges);
  expect(seen.missing).toBe(mostRanges - 1);
  expect(seen.add(2 * (10 * mostRanges - 1))).toBe(false);
  expect(seen.add(0)).toBe(true); // forgotten
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
      const ledger = new MapLedger().count([good, ...records, good], storedAt);
      expect(ledger.total("a").instances).toBe(1);
      expect(ledger.kinds.every((kind) => kind !== "failed")).toBe(true);
      expect(ledger.total("a").cpuUs).toBe(7n);
    }),
    { numRuns: 300 },
  );
});
