import type { Database } from "bun:sqlite";
import { join, resolve } from "node:path";
import { DirectoryLock } from "../directory-lock.ts";
import { StoreUnavailableError } from "../errors.ts";
import { checkCell, LIMITS } from "../limits.ts";
import type { JournalReader, Lease, LeaseOptions, Store } from "../store.ts";
import { EmbeddedBlobs } from "./blobs.ts";
import { openDatabase } from "./database.ts";
import { EmbeddedJournal } from "./journal.ts";
import { JournalFollower } from "./journal-follower.ts";
import { EmbeddedLeases } from "./lease.ts";
import { DEFAULT_RETENTION, type RetentionOptions } from "./retention.ts";
import { EmbeddedState } from "./state.ts";

export type { RetentionOptions } from "./retention.ts";

export interface EmbeddedStoreOptions {
  /** Where everything lies; made (0700) if missing. */
  readonly directory: string;
  /** The cell whose data this is; a directory of another cell is refused. Default "main". */
  readonly cell?: string;
  readonly retention?: Partial<RetentionOptions>;
  /** Most bytes of one blob. Default 512 MiB. */
  readonly maxBlobBytes?: number;
}

/**
 * Opens the store of one host: a SQLite database and a directory of blobs, exclusively for this process.
 * @throws StoreLockedError when another process has it open
 * @throws StoreMismatchError when the directory is of a newer version, of another cell or not Warren's
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<Store> {
  const directory = resolve(options.directory);
  const cell = options.cell ?? "main";
  checkCell(cell);
  const lock = DirectoryLock.acquire(directory);
  try {
    const blobs = await EmbeddedBlobs.open(
      join(directory, "blobs"),
      options.maxBlobBytes ?? LIMITS.blobBytes,
    );
    const db = openDatabase(directory, cell);
    return new EmbeddedStore(lock, db, blobs, { ...DEFAULT_RETENTION, ...options.retention });
  } catch (error) {
    lock.release();
    throw error;
  }
}

/**
 * Follows the journal in `directory` from another process than the one that has the store open. Needs neither the
 * writer running nor the database existing. `durable` is ignored and `ack` does nothing: keep the sequence of what you
 * have committed beside what you commit, and pass it as `after`.
 */
export function openEmbeddedJournalReader(options: { directory: string }): JournalReader & AsyncDisposable {
  return new JournalFollower(resolve(options.directory));
}

class EmbeddedStore implements Store {
  readonly kind = "embedded";
  readonly journal: EmbeddedJournal;
  readonly state: EmbeddedState;
  readonly #leases: EmbeddedLeases;
  #closed = false;

  constructor(
    readonly lock: DirectoryLock,
    readonly db: Database,
    readonly blobs: EmbeddedBlobs,
    retention: RetentionOptions,
  ) {
    this.journal = new EmbeddedJournal(db, retention);
    this.state = new EmbeddedState(db);
    this.#leases = new EmbeddedLeases(this.state);
  }

  acquireLease(options: LeaseOptions): Promise<Lease> {
    return this.#leases.acquire(options);
  }

  async ping(): Promise<void> {
    try {
      this.db.query("SELECT 1").get();
    } catch (cause) {
      throw new StoreUnavailableError(`the database in ${this.lock.directory} does not answer`, { cause });
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#leases.close();
    this.journal.close();
    this.db.close();
    this.lock.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
