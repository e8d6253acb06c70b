/**
 * Bounds how many instances start at once, and how many a second. Starts are CPU-bound (~10 CPU-ms each): a gate cuts
 * the median of a burst by about a fifth, and a rate keeps a crowd of cold tenants from starving the warm ones.
 */

import { Bucket } from "@warren/common/bucket";
import { pause } from "@warren/common/time";

export interface GateOptions {
  /** Starts at once. */
  readonly width: number;
  /** After which a start no longer counts, ms: one that hangs must not keep others out (rule 6). */
  readonly holdMs: number;
  /** Starts a second, sustained; of a quiet node as many at once. */
  readonly perSecond: number;
}

export class Gate {
  #inside = 0;
  readonly #queue: (() => void)[] = [];
  readonly #rate: Bucket;

  constructor(
    private readonly options: GateOptions,
    monotonic: () => number = () => performance.now(),
  ) {
    this.#rate = new Bucket(Math.max(1, options.perSecond), options.perSecond, monotonic);
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /**
   * Waits for a place, first come first served. The queue is bounded by the agent's bound on instances.
   * @returns gives the place back; or undefined when the signal aborted first
   */
  async enter(signal: AbortSignal): Promise<(() => void) | undefined> {
    if (signal.aborted) return undefined;
    if (this.#inside >= this.options.width) {
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
    // Those behind wait for this one's turn too: first come, first served.
    while (!this.#rate.take()) {
      await pause(this.#rate.waitMs, signal);
      if (signal.aborted) {
        leave();
        return undefined;
      }
    }
    void pause(this.options.holdMs, left.signal).then(leave);
    return leave;
  }
}
