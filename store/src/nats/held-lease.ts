import { pause } from "@warren/common/time";
import { LeaseLostError } from "../errors.ts";
import type { Lease } from "../store.ts";
import { anySignal, Backoff } from "../time.ts";
import type { NatsLink } from "./connection.ts";
import type { LeaseTimings } from "./lease.ts";
import { type LeaseRecord, writeLease } from "./lease-record.ts";

/** Longest that giving up may take. */
const RELEASE_MS = 2000;

/** A lease that we hold: renewed until it is released or lost. */
export class HeldLease implements Lease {
  readonly epoch: bigint;
  /** Resolves when it is over, either way. */
  readonly ended: Promise<void>;
  readonly #lost = new AbortController();
  readonly #released = new AbortController();
  /** When the last renewal that succeeded was sent. The server may have got it at once: the hold counts from here. */
  #renewedAt: number;
  #revision: number;

  constructor(
    readonly link: NatsLink,
    readonly record: LeaseRecord,
    revision: number,
    sentAt: number,
    readonly timings: LeaseTimings,
  ) {
    this.epoch = BigInt(record.epoch);
    this.#revision = revision;
    this.#renewedAt = sentAt;
    const over = anySignal(this.#lost.signal, this.#released.signal);
    this.ended = Promise.all([this.#renewUntil(over), this.#watchUntil(over)]).then(() => {});
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  get held(): boolean {
    return !this.#released.signal.aborted && !this.#lost.signal.aborted && !this.#loseIfOver();
  }

  lose(why: string): void {
    if (!this.#released.signal.aborted) this.#lost.abort(new LeaseLostError(why));
  }

  /** Best effort: when NATS is away the next one waits its 20 s, as after a crash. */
  async release(): Promise<void> {
    if (this.#released.signal.aborted) return this.ended;
    this.#released.abort();
    await this.ended; // a renewal in flight would race the release
    const record = { ...this.record, released: true };
    try {
      const id = crypto.randomUUID();
      await this.link.guard(() => writeLease(this.link, record, this.#revision, id, RELEASE_MS));
    } catch {
      // See above.
    }
  }

  async #renewUntil(over: AbortSignal): Promise<void> {
    const backoff = new Backoff(50, this.timings.renewEveryMs);
    while (!over.aborted) {
      await pause(this.#renewedAt + this.timings.renewEveryMs - this.timings.clock(), over);
      // One id and one time of sending for all tries: whichever of them was stored, followers count from the first on.
      const id = crypto.randomUUID();
      const sentAt = this.timings.clock();
      while (!over.aborted) {
        // Also when the timer of the watch is late, as after a suspended machine.
        if (this.#loseIfOver()) return;
        try {
          const timeoutMs = Math.min(this.timings.renewEveryMs, this.#left(this.timings.clock()));
          const revision = await this.link.guard(() =>
            writeLease(this.link, this.record, this.#revision, id, timeoutMs),
          );
          if (revision === undefined) {
            this.lose("another scheduler has taken the lease");
            return;
          }
          this.#revision = revision;
          this.#renewedAt = sentAt;
          backoff.reset();
          break;
        } catch {
          // Away for a moment; the watch below ends this in time.
          await pause(backoff.next(), over);
        }
      }
    }
  }

  /** Loses the lease `holdMs` after the last successful renewal was sent. */
  async #watchUntil(over: AbortSignal): Promise<void> {
    while (!over.aborted && !this.#loseIfOver()) await pause(this.#left(this.timings.clock()), over);
  }

  #loseIfOver(): boolean {
    if (this.#left(this.timings.clock()) > 0) return false;
    this.lose(`the lease could not be renewed for ${this.timings.holdMs} ms`);
    return true;
  }

  #left(now: number): number {
    return this.#renewedAt + this.timings.holdMs - now;
  }
}
