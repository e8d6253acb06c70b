import { resolve } from "node:path";
import { DirectoryLock } from "../directory-lock.ts";
import { checkCell, checkDeadline, DEFAULT_DEADLINE_MS, LIMITS } from "../limits.ts";
import type { JournalReader, Lease, LeaseOptions, Store } from "../store.ts";
import { Deadline } from "../time.ts";
import { NatsBlobs } from "./blobs.ts";
import { type NatsConnectOptions, NatsLink, unavailable } from "./connection.ts";
import { NatsJournal } from "./journal.ts";
import { NatsJournalReader } from "./journal-reader.ts";
import { DEFAULT_TIMINGS, type LeaseTimings, NatsLeases } from "./lease.ts";
import { NatsState } from "./state.ts";
import {
  blobsStream,
  ensureStream,
  eventsStream,
  leaseStream,
  type StreamOptions,
  stateStream,
} from "./streams.ts";

export type { NatsConnectOptions } from "./connection.ts";
export { type LeaseTimings, leaseTimings } from "./lease.ts";
export type { StreamOptions } from "./streams.ts";

export interface NatsStoreOptions extends NatsConnectOptions, StreamOptions {
  /** The cell whose data this is; one NATS account holds one cell. */
  readonly cell: string;
  /**
   * The scheduler's state directory. It is locked as long as the store is open, which proves to this scheduler, when it
   * starts again, that its predecessor is dead: it takes the lease back at once.
   */
  readonly directory?: string;
  readonly lease?: Partial<LeaseTimings>;
  /** Most bytes of one blob. Default 512 MiB. */
  readonly maxBlobBytes?: number;
}

export type NatsReaderOptions = NatsConnectOptions;

/** Of the background work after an acquisition. */
const SWEEP_DEADLINE_MS = 60_000;

/**
 * Connects to NATS, and makes or verifies the streams.
 * @throws StoreUnavailableError when there is no NATS with JetStream by the deadline (5 s), or it refuses us
 * @throws StoreMismatchError when an existing stream differs, also in its cell; it is left as it is
 * @throws StoreLockedError when another process has `directory` open
 */
export async function openNatsStore(options: NatsStoreOptions): Promise<Store> {
  checkCell(options.cell);
  const lock =
    options.directory === undefined ? undefined : DirectoryLock.acquire(resolve(options.directory));
  try {
    const link = await NatsLink.open(options);
    try {
      const deadline = new Deadline(options.openDeadlineMs ?? 5000);
      for (const wanted of [
        eventsStream(options.cell, options),
        stateStream(options.cell, options, LIMITS.stateKeys),
        leaseStream(options.cell, options),
        blobsStream(options.cell, options),
      ]) {
        await ensureStream(link, wanted, deadline);
      }
      const blobs = await NatsBlobs.open(link, options.maxBlobBytes ?? LIMITS.blobBytes);
      return new NatsStore(link, lock, blobs, options);
    } catch (error) {
      await link.close();
      throw error;
    }
  } catch (error) {
    lock?.release();
    throw error;
  }
}

/**
 * Follows the journal. Needs NATS at the time of opening, but not the stream: reading waits until a scheduler has made it.
 * @throws StoreUnavailableError when there is no NATS with JetStream by the deadline (5 s), or it refuses us
 */
export async function openNatsJournalReader(
  options: NatsReaderOptions,
): Promise<JournalReader & AsyncDisposable> {
  const link = await NatsLink.open(options);
  const reader = new NatsJournalReader(link);
  return {
    read: (readOptions) => reader.read(readOptions),
    [Symbol.asyncDispose]: async () => {
      reader.close();
      await link.close();
    },
  };
}

class NatsStore implements Store {
  readonly kind = "nats";
  readonly journal: NatsJournal;
  readonly state: NatsState;
  readonly #reader: NatsJournalReader;
  readonly #leases: NatsLeases;
  readonly #closed = new AbortController();

  constructor(
    readonly link: NatsLink,
    readonly lock: DirectoryLock | undefined,
    readonly blobs: NatsBlobs,
    options: NatsStoreOptions,
  ) {
    this.#reader = new NatsJournalReader(link);
    this.journal = new NatsJournal(link, this.#reader);
    this.state = new NatsState(link);
    this.#leases = new NatsLeases(link, lock?.directoryId, { ...DEFAULT_TIMINGS, ...options.lease });
  }

  async acquireLease(options: LeaseOptions): Promise<Lease> {
    const lease = await this.#leases.acquire(options);
    void this.#sweepBlobs();
    return lease;
  }

  async ping(deadlineMs = DEFAULT_DEADLINE_MS): Promise<void> {
    checkDeadline(deadlineMs);

    try {
      // JetStream's own answer: a server whose JetStream is gone still answers a plain ping.
      const subject = `${this.link.js.apiPrefix}.INFO`;
      await this.link.guard(() => this.link.nc.request(subject, undefined, { timeout: deadlineMs }));
    } catch (cause) {
      throw unavailable(this.link, "ping", cause);
    }
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.#reader.close();
    this.journal.close();
    await this.#leases.close();
    await this.link.close();
    this.lock?.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #sweepBlobs(): Promise<void> {
    try {
      await this.blobs.sweep(AbortSignal.any([this.#closed.signal, AbortSignal.timeout(SWEEP_DEADLINE_MS)]));
    } catch {
      // Left-overs only cost space; the next acquisition sweeps again.
    }
  }
}
