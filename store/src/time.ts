/** Monotonic milliseconds: unlike `Date.now()` it never jumps when somebody sets the clock. */
export type Clock = () => number;

export const monotonic: Clock = () => performance.now();

/** Lets everything else that is ready have its turn of the event loop. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A moment by which something must have ended. */
export class Deadline {
  readonly #end: number;

  constructor(readonly ms: number) {
    this.#end = monotonic() + ms;
  }

  /** Milliseconds left, never negative. */
  get left(): number {
    return Math.max(0, this.#end - monotonic());
  }

  get passed(): boolean {
    return this.left === 0;
  }
}

/** Waits that double from `firstMs` to `mostMs`, with up to a quarter of jitter so that many do not retry as one. */
export class Backoff {
  #next: number;

  constructor(
    readonly firstMs: number,
    readonly mostMs: number,
  ) {
    this.#next = firstMs;
  }

  /** The next wait in milliseconds. */
  next(): number {
    const wait = this.#next;
    this.#next = Math.min(this.mostMs, wait * 2);
    return wait * (0.75 + Math.random() * 0.25);
  }

  reset(): void {
    this.#next = this.firstMs;
  }
}

/** The signal that aborts when any of these does. */
export function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}
