/**
 * What the cluster must remember, behind four small interfaces with two back ends (embedded SQLite and
 * NATS JetStream) that are held to one conformance suite.
 *
 *  S1  An append that answered is durable: it survives kill -9 of every process.
 *  S2  The state log has one writer at a time: an append names the sequence it expects to be the last, and a
 *      writer whose lease was taken over finds that it is not, and is told so by {@link StaleWriterError}.
 *  S3  A journal record is stored once per id, however often it is appended: for as long as the record is kept
 *      (embedded), or within the stream's duplicate window (NATS, 5 minutes by default: the server keeps every id of
 *      it in memory). Who must count exactly removes repeats by id.
 *  S4  Every wait ends by its deadline or its signal.
 */

/** One event as it stands in the journal. The journal does not look inside `data`. */
export interface JournalRecord {
  /** Unique for ever: `<producer>:<incarnation>:<seq>`. Appending the same id again stores nothing. */
  readonly id: string;
  /** `warren.events.<tenant>.<type>`; each token matches `^[a-zA-Z0-9_-]+$`. */
  readonly subject: string;
  /** CloudEvents attributes and the like; names are lower case. At most 32 of at most 1 KiB each. */
  readonly headers: Readonly<Record<string, string>>;
  /** At most 256 KiB. */
  readonly data: Uint8Array;
}

/** A record together with its place in the journal. */
export interface StoredRecord extends JournalRecord {
  /** Rises by the order of storing; gaps are possible. */
  readonly seq: bigint;
  /** When the journal took it, in ms since 1970 by its own clock: the same however often the record is read. */
  readonly storedAt: number;
}

/**
 * Some records in order, at least one. `ack` tells the back end that the consumer has committed all of them and all
 * before; it may be called again after a StoreUnavailableError.
 */
export interface JournalBatch {
  readonly records: readonly StoredRecord[];
  /** Records in the journal behind this batch when it was read; on the embedded back end, at most. */
  readonly pending: number;
  ack(): Promise<void>;
}

export interface ReadOptions {
  /**
   * Name (`^[a-zA-Z0-9_-]{1,64}$`) under which a back end with consumers (NATS) shows what was delivered and acknowledged,
   * with one reader at a time. It never is where reading goes on: that is the reader's `after`. The embedded back end
   * ignores it.
   */
  readonly durable?: string;
  /** Start after this sequence. */
  readonly after?: bigint | "end";
  /** Only subjects below this one: `warren.events.` + tenant. Everything when absent. */
  readonly subjectPrefix?: string;
  /** Most records in one batch. Default 256. */
  readonly batch?: number;
  /** Ends the iteration, quietly. */
  readonly signal: AbortSignal;
}

export interface JournalReader {
  /** Follows the journal: past records first, then new ones as they come. Survives reconnects of the back end. */
  read(options: ReadOptions): AsyncIterable<JournalBatch>;
}

export interface Journal extends JournalReader {
  /**
   * Stores the records in order and answers when they are durable.
   * @throws StoreUnavailableError when that is not known by `deadlineMs` (some may have been stored: append the same ids again)
   * @throws StoreInputError when a record is over a bound or malformed; nothing was stored
   */
  append(records: readonly JournalRecord[], options?: { deadlineMs?: number }): Promise<void>;
  /**
   * Sequence of the newest record; 0n while there is none. A reader that starts after it misses nothing appended later.
   * @throws StoreUnavailableError
   */
  lastSeq(): Promise<bigint>;
}

/** The cluster's state: the last value of each key, and the sequence of the last append. */
export interface StateSnapshot {
  readonly entries: ReadonlyMap<string, Uint8Array>;
  /** Sequence of the last append of all; 0n when nothing was ever appended. */
  readonly lastSeq: bigint;
  /** Epoch of the last acquisition of the lease; 0n before the first. The holder's load shows its own epoch. */
  readonly epoch: bigint;
}

export interface StateLog {
  /** Reads everything. Keys: 1–4 tokens of `[a-zA-Z0-9_-]{1,128}` joined by `.`; values at most 512 KiB. */
  load(options?: { deadlineMs?: number }): Promise<StateSnapshot>;
  /**
   * Sets `key` (or removes it, with `null`) provided that `expectedLastSeq` is still the last sequence of the log.
   * The key `epoch` is the store's own, for its seal.
   * @returns the new last sequence
   * @throws StaleWriterError when another writer has appended since
   * @throws StoreUnavailableError when the outcome is not known by `deadlineMs`. Calling again with the *same*
   *   arguments is safe: an append that had been stored is recognised and answered with its sequence.
   */
  append(
    key: string,
    value: Uint8Array | null,
    expectedLastSeq: bigint,
    options?: { deadlineMs?: number },
  ): Promise<bigint>;
}

/** Immutable bytes by name: of a release its sha256 in hex, of a backup of a volume `volume-<backup>-<part>`. */
export interface Blobs {
  /**
   * Streams the bytes in (at most 512 MiB); visible under `name` only when complete. Putting an existing name is a
   * no-op that does not read `bytes`.
   * @throws StoreInputError when it is too large; nothing was stored
   * @throws StoreUnavailableError put it again from its start
   */
  put(name: string, bytes: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void>;
  /** @throws BlobNotFoundError at the first chunk */
  get(name: string, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  has(name: string): Promise<boolean>;
  delete(name: string): Promise<void>;
  list(): Promise<readonly { name: string; size: number }[]>;
}

/** The right to command the cluster. */
export interface Lease {
  /** Rises with each acquisition, by whomever; never repeats. At least `atLeast` + 1 if that was given. */
  readonly epoch: bigint;
  /** Aborts when the lease may be lost; the reason is a {@link LeaseLostError}. From then on command nothing. */
  readonly lost: AbortSignal;
  /**
   * Whether it is held at this moment, by the clock: a process that slept through its end learns it here before any timer
   * of it has run.
   */
  readonly held: boolean;
  /** Gives it up, so that the next one need not wait. */
  release(): Promise<void>;
}

export interface LeaseOptions {
  /** Who asks: stable over restarts of the same scheduler on the same state directory. */
  readonly holder: string;
  /** Where others reach the holder; kept beside the lease for followers to answer with. */
  readonly address: string;
  /** The epoch will be above this one: the highest that an agent has reported, should the store have lost its own. */
  readonly atLeast?: bigint;
  /** Ends the waiting; `acquireLease` rejects with its reason. */
  readonly signal: AbortSignal;
  /** Told while waiting, once and whenever the holder changes. */
  readonly onWaiting?: (current: { holder: string; address: string; epoch: bigint }) => void;
}

/** Everything of one back end. */
export interface Store extends AsyncDisposable {
  readonly kind: "embedded" | "nats";
  readonly journal: Journal;
  readonly state: StateLog;
  readonly blobs: Blobs;
  /**
   * Waits until this process holds the lease, however long. It then has sealed the state log: whoever held the lease
   * before finds its next append stale (S2). So acquire first, then `state.load()`, then append.
   * @throws the signal's reason when that aborts first
   */
  acquireLease(options: LeaseOptions): Promise<Lease>;
  /** Whether the back end answers now; for health and for error messages. */
  ping(deadlineMs?: number): Promise<void>;
  close(): Promise<void>;
}
