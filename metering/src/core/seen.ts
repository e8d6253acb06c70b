/**
 * Which records of a producer were counted, for ever: ids are `<producer>:<incarnation>:<seq>` with a seq that rises by
 * one, so that all of a run's ids are a few ranges, mostly one. Pure.
 *
 * Bounded: beyond {@link mostRanges} the oldest range is forgotten. What was in it counts as not seen, and is
 * read again should it come again, which changes no total (L1 in account.ts).
 */

/** From and to, both inclusive. */
type Range = [from: number, to: number];

/** Ranges kept of one run: a run with so many gaps has lost, or still delivers, most of what it says. */
export const mostRanges = 64;

/** Runs kept; those that were heard of least lately go first. */
export const mostRuns = 10_000;

const shape = /^([\x21-\x7e]{1,240}):([0-9]{1,15})$/;

export interface RecordId {
  /** `<producer>:<incarnation>` */
  readonly run: string;
  readonly seq: number;
}

/** Nothing for an id of another kind. */
export function parseId(id: string): RecordId | undefined {
  const [, run, seq] = shape.exec(id) ?? [];
  return run === undefined ? undefined : { run, seq: Number(seq) };
}

/** The records of one run that were seen. */
export class Seen {
  /** Ascending, with gaps between. */
  readonly #ranges: Range[];

  private constructor(ranges: Range[]) {
    this.#ranges = ranges;
  }

  /** @param text as {@link Seen.toString} wrote it; nothing: none was seen */
  static parse(text = ""): Seen {
    const ranges = text.split(",").filter(Boolean);
    return new Seen(
      ranges.map((range): Range => {
        const [from, to = from] = range.split("-").map(Number);
        return [from!, to!];
      }),
    );
  }

  /** Ascending. */
  get ranges(): readonly Readonly<Range>[] {
    return this.#ranges;
  }

  /** Sequences between those seen: on their way still, or lost. */
  get missing(): number {
    return this.#ranges.reduce(
      (sum, [from], i) => sum + (i === 0 ? 0 : from - this.#ranges[i - 1]![1] - 1),
      0,
    );
  }

  /** Whether it is new. */
  add(seq: number): boolean {
    const ranges = this.#ranges;
    // Nearly always the newest range, or the one behind it: from the end.
    let at = ranges.length - 1;
    while (at >= 0 && ranges[at]![0] > seq) at--;
    const before = ranges[at];
    const after = ranges[at + 1];
    if (before && seq <= before[1]) return false;
    const joinsBefore = before?.[1] === seq - 1;
    const joinsAfter = after?.[0] === seq + 1;
    if (before && after && joinsBefore && joinsAfter) ranges.splice(at, 2, [before[0], after[1]]);
    else if (before && joinsBefore) before[1] = seq;
    else if (after && joinsAfter) after[0] = seq;
    else ranges.splice(at + 1, 0, [seq, seq]);
    if (ranges.length > mostRanges) ranges.shift();
    return true;
  }

  /** "1-40,43" */
  toString(): string {
    return this.#ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
  }
}
