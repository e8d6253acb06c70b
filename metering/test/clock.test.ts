/** The ledger's own time: days of the journal, however its clock goes. */
import { expect, test } from "bun:test";
import { foldedUntil, freshClock, isSilent, type LedgerClock, RunningClock } from "../src/core/clock.ts";
import { dayMs } from "../src/core/plausible.ts";
import { ten } from "./events.ts";

const after = (before: LedgerClock, days: readonly number[]): LedgerClock => {
  const clock = new RunningClock(before);
  for (const day of days) clock.advance(ten + day * dayMs);
  return clock.now;
};
const span = (from: number, count: number, step = 1) =>
  Array.from({ length: count }, (_, n) => from + n * step);
const fresh = freshClock(15);
const hourOf = (day: number) => Math.floor((ten + day * dayMs) / dayMs) * 24;

test("a day counts once, in whatever order, and counting the journal again is no time", () => {
  const once = after(fresh, [0, 0.1, 1, 1.2, 2]);
  expect(once.day).toBe(3);
  expect(after(once, [2, 0, 1, 0.3])).toBe(once);
  expect(after(fresh, [2, 1, 0])).toEqual(once);
});

test("rule 9: a record with an absurd time, or an hour of a clock that is years ahead, folds nothing", () => {
  const before = after(fresh, span(0, 10));
  for (const absurd of [[5_000], [5_000, 5_000.1, 5_001, 90_000], [-30_000]]) {
    const stepped = after(before, absurd);
    expect(isSilent(before.day, stepped)).toBe(false);
    // Nor does it stand still afterwards.
    expect(after(stepped, [10, 11, 12]).day).toBe(stepped.day + 3);
    expect(foldedUntil(stepped)).toBe(0);
  }
});

test("a clock that was wrong for months and is put right: who is heard of then is not silent", () => {
  const wrong = after(after(fresh, span(0, 10)), span(400, 90));
  expect(isSilent(wrong.day, after(wrong, span(10, 16)))).toBe(false);
  expect(isSilent(wrong.day, after(wrong, span(10, 17)))).toBe(true);
});

test("hours are folded so many days behind the newest; days without a record do not count", () => {
  expect(foldedUntil(after(fresh, span(0, 18)))).toBe(0);
  expect(foldedUntil(after(fresh, span(0, 19)))).toBe(hourOf(0));
  expect(foldedUntil(after(fresh, span(0, 30)))).toBe(hourOf(11));
  expect(foldedUntil(after(fresh, [...span(0, 10), ...span(100, 10)]))).toBe(hourOf(1));
  // Only so many gaps are remembered: what is older than these is old.
  expect(foldedUntil(after(freshClock(100), span(0, 300, 2)))).toBe(hourOf(2 * (300 - 64)));
});
