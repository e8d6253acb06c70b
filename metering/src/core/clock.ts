/**
 * The ledger's own time: the number of days on which its journal took something that was counted. Pure.
 *
 * A day counts once, whenever and however often it comes: a record with an absurd time, or a clock that was wrong for an
 * hour, is one day and not the years in between; and counting the journal again is no time at all. Our own clock has no say,
 * so that whoever counts the same records has the same time. While nothing comes it stands still, and then nothing grows.
 */
import { dayMs } from "./plausible.ts";
import { mostRanges, Seen } from "./seen.ts";

export interface LedgerClock {
  /** Days since 1970 that were counted, see {@link Seen.toString}. */
  readonly days: string;
  /** How many there were; the running one is the last. */
  readonly day: number;
  /** The horizon, in such days: what was not heard of for longer is folded (fold.ts). */
  readonly foldAfter: number;
}

export const defaultFoldAfter = 40;

/** Twice what the journal keeps by default, and a day: what may be counted again from its beginning is not folded. */
export const leastFoldAfter = 15;

/**
 * An account is silent for two days more than the horizon before it goes. Its id is at most a day younger than the first
 * that was heard of it (the clocks of scheduler and journal differ by no more), so that when it goes, its id alone says that
 * it is older than the horizon.
 */
const marginDays = 2;

export const freshClock = (foldAfter: number): LedgerClock => ({ days: "", day: 0, foldAfter });

/** The clock after a record that the journal took at `storedAt` (ms since 1970). */
export class RunningClock {
  readonly #days: Seen;
  #now: LedgerClock;
  #last: number | undefined;

  constructor(before: LedgerClock) {
    this.#days = Seen.parse(before.days);
    this.#now = before;
  }

  get now(): LedgerClock {
    return this.#now;
  }

  advance(storedAt: number): void {
    const day = Math.max(0, Math.floor(storedAt / dayMs));
    if (day === this.#last) return;
    this.#last = day;
    if (!this.#days.add(day)) return;
    this.#now = { ...this.#now, days: this.#days.toString(), day: this.#now.day + 1 };
  }
}

/** Whether what was heard of last on that day of the ledger has been silent for too long. */
export const isSilent = (seen: number, { day, foldAfter }: LedgerClock): boolean =>
  day - seen >= foldAfter + marginDays;

/** Nothing can have been folded before. */
export const mayHaveFolded = (clock: LedgerClock): boolean => isSilent(0, clock);

/**
 * Hours before this one (since 1970) are folded, also of those who live: so many days before the newest that were counted,
 * and a day more than it takes to be silent, so that most are folded once and as a whole. Where the journal's clock was ahead for
 * months, younger ones are folded too: that changes no total, and of `instances` only in which hours they count.
 */
export function foldedUntil({ days, foldAfter }: LedgerClock): number {
  let left = foldAfter + marginDays + 1;
  const ranges = Seen.parse(days).ranges;
  for (const [from, to] of ranges.toReversed()) {
    if (to - from >= left) return (to - left) * 24;
    left -= to - from + 1;
  }
  // Of a journal with so many gaps older days are not known, but that they are old.
  return ranges.length < mostRanges ? 0 : ranges[0]![0] * 24;
}
