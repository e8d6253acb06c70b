/** How much output is taken in, and when: decisions without I/O. */
import { chunkBytes, type LogBounds, lastBytes } from "./bounds.ts";

/** So many bytes at once, and so many per second in the long run; the last take may overdraw it. */
export class Allowance {
  #bytes: number;
  #at: number;

  constructor(
    private readonly bounds: LogBounds,
    now: number,
  ) {
    this.#bytes = bounds.burstBytes;
    this.#at = now;
  }

  /** @param now monotonic ms */
  available(now: number): number {
    const gained = (Math.max(0, now - this.#at) / 1000) * this.bounds.bytesPerSecond;
    this.#bytes = Math.min(this.bounds.burstBytes, this.#bytes + gained);
    this.#at = now;
    return this.#bytes;
  }

  take(bytes: number): void {
    this.#bytes -= bytes;
  }
}

/** Once starved, nothing is read until a second's worth may be: fewer and longer gaps rather than a shred here and there. */
export function isStarved(was: boolean, allowance: number, bounds: LogBounds): boolean {
  return was ? allowance < Math.min(bounds.bytesPerSecond, bounds.burstBytes) : allowance <= 0;
}

/**
 * What becomes of the unread bytes of one raw file: the first `skip` are dropped, then `read` are read.
 * @param last nothing more will be written: what may not be dropped is read, allowed or not
 */
export function plan(
  state: {
    readonly unread: number;
    readonly allowance: number;
    readonly starved: boolean;
    readonly last: boolean;
  },
  bounds: LogBounds,
): { readonly skip: number; readonly read: number } {
  const { unread, allowance, starved, last } = state;
  const allowed = Math.max(lastBytes, Math.min(Math.floor(allowance), bounds.rawBytes));
  const kept = starved ? lastBytes : unread > bounds.rawBytes ? allowed : unread;
  const skip = Math.max(0, unread - kept);
  return { skip, read: starved && !last ? 0 : Math.min(unread - skip, chunkBytes) };
}

/** What a look at an instance found: nothing, a little, a lot, or more than it took in at once. */
export type Found = "nothing" | "some" | "much" | "more";

/** One that has not written for this long is quiet. */
export const quietAfterMs = 1_000;

/**
 * Until the next look at an instance, in ms. A flood must be noticed before it fills the disk, at up to 3 GB a second:
 * this, and not the delay of a line, is why none is looked at rarely unless the kernel tells when it writes.
 * @param quietMs for how long it has not written
 * @param watched the kernel tells when it writes again
 */
export function nextLookMs(found: Found, quietMs: number, watched: boolean): number {
  switch (found) {
    case "more":
      return 0;
    case "much":
      return 10;
    case "some":
      return 100;
    case "nothing":
      if (quietMs < quietAfterMs) return 100;
      return watched ? 5_000 : 250;
  }
}
