import { pause } from "@warren/common/time";
import { Turn } from "@warren/common/turn";
import { LeaseLostError, StoreInputError, StoreMismatchError } from "../errors.ts";
import type { Lease, LeaseOptions } from "../store.ts";
import { anySignal, Backoff, type Clock, monotonic } from "../time.ts";
import type { NatsLink } from "./connection.ts";
import { HeldLease } from "./held-lease.ts";
import { type LeaseRecord, type LeaseRevision, readLease, writeLease } from "./lease-record.ts";
import { sealedEpoch, trySeal } from "./seal.ts";

/** The lease's durations in milliseconds, each on the monotonic clock of the process that measures it. */
export interface LeaseTimings {
  /** The holder renews that often. Default 5000. */
  readonly renewEveryMs: number;
  /** The holder stops commanding that long after sending its last successful renewal. Default 15 000. */
  readonly holdMs: number;
  /** A follower takes over after seeing the revision unchanged for that long. Default 20 000; above `holdMs`. */
  readonly takeoverMs: number;
  /** A follower looks that often: so long after it was given up a lease is taken. Default 250. */
  readonly pollEveryMs: number;
  readonly clock: Clock;
}

/** Timings in the proportions of the default ones, for a follower that takes over after `takeoverMs`. */
export function leaseTimings(takeoverMs: number): LeaseTimings {
  return {
    renewEveryMs: takeoverMs / 4,
    holdMs: (takeoverMs * 3) / 4,
    takeoverMs,
    pollEveryMs: Math.min(250, takeoverMs / 10),
    clock: monotonic,
  };
}

export const DEFAULT_TIMINGS: LeaseTimings = leaseTimings(20_000);

/**
 * The lease of a cell: one record, taken and renewed by compare-and-set on its revision. No server-side expiry and
 * nobody's wall clock takes part. The clocks only make two commanders at once unlikely; that the older one can do no
 * harm follows from the epoch (agents refuse older ones) and from the seal of the state log.
 */
export class NatsLeases {
  readonly #turn = new Turn();
  readonly #closed = new AbortController();
  #held: HeldLease | undefined;

  constructor(
    readonly link: NatsLink,
    /** Identity of the state directory that this process has locked, if any. */
    readonly directoryId: string | undefined,
    readonly timings: LeaseTimings,
  ) {
    const { renewEveryMs, holdMs, takeoverMs } = timings;
    if (!(renewEveryMs < holdMs && holdMs < takeoverMs)) {
      throw new StoreInputError(
        `lease timings need renewEveryMs < holdMs < takeoverMs, not ${renewEveryMs}, ${holdMs}, ${takeoverMs}`,
      );
    }
  }

  async acquire(options: LeaseOptions): Promise<Lease> {
    const signal = anySignal(options.signal, this.#closed.signal);
    const current = this.#held;
    if (current !== undefined) options.onWaiting?.({ ...current.record, epoch: current.epoch });
    const giveBack = await this.#turn.take(signal);
    try {
      const held = await this.#contend(options, signal);
      this.#held = held;
      void held.ended.then(() => {
        if (this.#held === held) this.#held = undefined;
        giveBack();
      });
      return held;
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** Gives up what is held. */
  async close(): Promise<void> {
    this.#closed.abort(new LeaseLostError("the store was closed"));
    const held = this.#held;
    if (held === undefined) return;
    held.lose("the store was closed");
    await held.release();
  }

  /** Looks, waits, takes and seals, until all of it has succeeded or the signal aborts. */
  async #contend(options: LeaseOptions, signal: AbortSignal): Promise<HeldLease> {
    const watch = new Watch(options, this.timings, this.directoryId);
    const backoff = new Backoff(50, this.timings.pollEveryMs);
    for (;;) {
      signal.throwIfAborted();
      try {
        const seen = await this.link.guard(() => readLease(this.link));
        if (watch.mayTake(seen)) {
          const held = await this.#take(options, seen);
          if (held !== undefined && (await this.#seal(held, signal))) return held;
          watch.reset();
        }
        backoff.reset();
        await pause(this.timings.pollEveryMs, signal);
      } catch (error) {
        if (error instanceof StoreMismatchError) throw error;
        // While NATS is away the holder cannot renew: time that we have not seen pass does not count against it.
        watch.reset();
        await pause(backoff.next(), signal);
      }
    }
  }

  async #take(options: LeaseOptions, seen: LeaseRevision): Promise<HeldLease | undefined> {
    const floors = [
      BigInt(seen.record?.epoch ?? "0"),
      await this.link.guard(() => sealedEpoch(this.link)),
      options.atLeast ?? 0n,
    ];
    const epoch = floors.reduce((most, floor) => (floor > most ? floor : most)) + 1n;
    const record: LeaseRecord = {
      holder: options.holder,
      address: options.address,
      epoch: String(epoch),
      directoryId: this.directoryId,
      released: false,
    };
    const sentAt = this.timings.clock();
    const id = crypto.randomUUID();
    const revision = await this.link.guard(() => writeLease(this.link, record, seen.revision, id));
    return revision === undefined
      ? undefined
      : new HeldLease(this.link, record, revision, sentAt, this.timings);
  }

  /** Answers whether the log is sealed; if not, the lease is over. */
  async #seal(held: HeldLease, signal: AbortSignal): Promise<boolean> {
    const nonce = crypto.randomUUID();
    const backoff = new Backoff(5, 250);
    const over = anySignal(signal, held.lost);
    while (!over.aborted) {
      try {
        if (await trySeal(this.link, held.epoch, nonce)) return true;
      } catch (error) {
        if (error instanceof LeaseLostError) {
          held.lose(error.message);
          return false;
        }
        // Away for a moment: the lease tells when that takes too long.
      }
      await pause(backoff.next(), over);
    }
    await held.release();
    return false;
  }
}

/** What a follower has seen of the lease, on its own clock. */
class Watch {
  #revision: number | undefined;
  #since = 0;
  #told: string | undefined;

  constructor(
    readonly options: LeaseOptions,
    readonly timings: LeaseTimings,
    readonly directoryId: string | undefined,
  ) {}

  reset(): void {
    this.#revision = undefined;
  }

  mayTake({ revision, record }: LeaseRevision): boolean {
    if (record === undefined || record.released) return true;
    // Only one process can have this directory locked, and that is us: the holder of that record is dead.
    const predecessor = record.holder === this.options.holder && record.directoryId === this.directoryId;
    if (predecessor && this.directoryId !== undefined) return true;
    this.#tell(record);
    const now = this.timings.clock();
    if (revision !== this.#revision) {
      this.#revision = revision;
      this.#since = now;
      return false;
    }
    return now - this.#since >= this.timings.takeoverMs;
  }

  #tell(record: LeaseRecord): void {
    const who = `${record.holder} ${record.address} ${record.epoch}`;
    if (who === this.#told) return;
    this.#told = who;
    this.options.onWaiting?.({ holder: record.holder, address: record.address, epoch: BigInt(record.epoch) });
  }
}
