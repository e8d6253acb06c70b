/**
 * Bounds how many instances start at once. Starts are CPU-bound (~10 CPU-ms each): a gate cuts the median of a burst by
 * about a fifth.
 */
import { pause } from "@warren/common/time";

export class Gate {
  #inside = 0;
  readonly #queue: (() => void)[] = [];

  /**
   * @param width starts at once
   * @param holdMs after which a start no longer counts: one that hangs must not keep others out (rule 6)
   */
  constructor(
    readonly width: number,
    private readonly holdMs: number,
  ) {}

  get waiting(): number {
    return this.#queue.length;
  }

  /**
   * Waits for a place, first come first served. The queue is bounded by the agent's bound on instances.
   * @returns gives the place back; or undefined when the signal aborted first
   */
  async enter(signal: AbortSignal): Promise<(() => void) | undefined> {
    if (signal.aborted) return undefined;
    if (this.#inside >= this.width) {
      const admitted = await new Promise<boolean>((resolve) => {
        const enter = () => {
          signal.removeEventListener("abort", leave);
          resolve(true);
        };
        const leave = () => {
          const at = this.#queue.indexOf(enter);
          if (at >= 0) this.#queue.splice(at, 1);
          resolve(false);
        };
        signal.addEventListener("abort", leave, { once: true });
        this.#queue.push(enter);
      });
      if (!admitted) return undefined;
    } else {
      this.#inside++;
    }
    // From here on the place is ours: handed over by the one who left, or taken just now.
    const left = new AbortController();
    const leave = () => {
      if (left.signal.aborted) return;
      left.abort();
      const next = this.#queue.shift();
      if (next) next();
      else this.#inside--;
    };
    void pause(this.holdMs, left.signal).then(leave);
    return leave;
  }
}
