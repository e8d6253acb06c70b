/**
 * Lines of several instances, each in its own order, as one stream in the order in which they were read. Pure: times come from
 * the caller.
 *
 *  O1  Lines of one instance never change places.
 *  O2  Of the past the last `tail` lines of all come, once each instance has told its own.
 *  O3  What is held is bounded, in lines and in bytes; what is left out is said.
 */

/** What is merged: a line, with what it costs to hold. */
export interface Merged<L> {
  readonly source: string;
  /** When it was read, ms since 1970. */
  readonly at: number;
  readonly bytes: number;
  readonly line: L;
}

export interface MergeBounds {
  /** Lines of the past. */
  readonly tail: number;
  /** Bytes of the past that are held; the oldest are left out. */
  readonly pastBytes: number;
  /** So long a new line is held, in ms, for an older one of another instance to come. */
  readonly holdMs: number;
}

interface Held<L> extends Merged<L> {
  /** `at`, but not before that of the line before it (O1). */
  readonly order: number;
  /** Arrival, ms of a monotonic clock, and number. */
  readonly arrived: number;
  readonly n: number;
}

export class Merge<L> {
  /** Those that have not told all of their past yet. */
  readonly #behind = new Set<string>();
  readonly #sources = new Map<string, { last: number }>();
  #held: Held<L>[] = [];
  #bytes = 0;
  #arrivals = 0;
  /** Lines of the past that were left out for their bytes. */
  #left = 0;
  #isPast = true;
  #added = 0;

  constructor(private readonly bounds: MergeBounds) {}

  add(source: string): void {
    this.#sources.set(source, { last: 0 });
    this.#added++;
    if (this.#isPast) this.#behind.add(source);
  }

  /** It has told its past. */
  caughtUp(source: string): void {
    this.#behind.delete(source);
  }

  /** It tells nothing more. */
  end(source: string): void {
    this.#behind.delete(source);
    this.#sources.delete(source);
  }

  get sources(): readonly string[] {
    return [...this.#sources.keys()];
  }

  /** Lines that are held. */
  get held(): number {
    return this.#held.length;
  }

  /** Whether not all have told their past yet. */
  get isPast(): boolean {
    return this.#isPast;
  }

  /** What comes now is held until all have told their past; of one alone nothing needs to be. */
  get isGathering(): boolean {
    return this.#isPast && this.#added > 1;
  }

  /** @param now monotonic ms */
  push(lines: readonly Merged<L>[], now: number): void {
    for (const line of lines) {
      const source = this.#sources.get(line.source);
      const order = Math.max(line.at, source?.last ?? 0);
      if (source) source.last = order;
      this.#held.push({ ...line, order, arrived: now, n: this.#arrivals++ });
      this.#bytes += line.bytes;
    }
    if (this.isGathering) this.#trim();
  }

  /** What may be told now, in order. */
  take(now: number): { readonly lines: readonly L[]; readonly leftOut: number } {
    const wasGathering = this.isGathering;
    if (wasGathering && this.#behind.size > 0) return { lines: [], leftOut: 0 };
    if (this.#behind.size === 0) this.#isPast = false;
    this.#sort();
    if (wasGathering) {
      const past = this.#take(this.#held.length);
      const leftOut = this.#left;
      this.#left = 0;
      return { lines: past.slice(Math.max(0, past.length - this.bounds.tail)), leftOut };
    }
    return { lines: this.#take(this.#due(now)), leftOut: 0 };
  }

  /** Until something that is held is due, in ms; undefined while nothing is held, or the past is not whole. */
  dueIn(now: number): number | undefined {
    if (this.isGathering || this.#held.length === 0) return undefined;
    if (this.#sources.size <= 1) return 0;
    const first = this.#held.reduce(
      (least, { arrived }) => Math.min(least, arrived),
      Number.POSITIVE_INFINITY,
    );
    return Math.max(0, first + this.bounds.holdMs - now);
  }

  /** How many of the sorted lines are due: all before the last one that was held long enough. */
  #due(now: number): number {
    if (this.#sources.size <= 1) return this.#held.length;
    return 1 + this.#held.findLastIndex(({ arrived }) => now - arrived >= this.bounds.holdMs);
  }

  #take(count: number): L[] {
    const taken = this.#held.splice(0, count);
    for (const { bytes } of taken) this.#bytes -= bytes;
    return taken.map(({ line }) => line);
  }

  #sort(): void {
    this.#held.sort((a, b) => a.order - b.order || a.n - b.n);
  }

  /** O3: the oldest of more than twice the tail cannot be among the last. */
  #trim(): void {
    const { tail, pastBytes } = this.bounds;
    if (this.#held.length <= 2 * tail && this.#bytes <= pastBytes) return;
    this.#sort();
    const most = Math.max(0, this.#held.length - tail);
    this.#take(most);
    while (this.#bytes > pastBytes && this.#held.length > 0) {
      this.#take(1);
      this.#left++;
    }
  }
}
