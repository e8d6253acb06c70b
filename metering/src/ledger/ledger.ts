/** The ledger: the pure core's results, committed batch by batch together with the place in the journal. */
import type { Database } from "bun:sqlite";
import { resolve } from "node:path";
import type { StoredRecord } from "@warren/store";
import { DirectoryLock } from "@warren/store/directory-lock";
import { type Counted, countBatch } from "../core/count.ts";
import { Book } from "./book.ts";
import { openLedgerDatabase } from "./database.ts";
import { type Position, Positions } from "./positions.ts";
import { Quarantine } from "./quarantine.ts";
import { readUsage, type UsageQuery, type UsageRow } from "./usage.ts";

export class Ledger implements Disposable {
  readonly #lock: DirectoryLock;
  readonly #db: Database;
  readonly #book: Book;
  readonly #positions: Positions;
  readonly #quarantine: Quarantine;

  private constructor(lock: DirectoryLock, db: Database) {
    this.#lock = lock;
    this.#db = db;
    this.#book = new Book(db);
    this.#positions = new Positions(db);
    this.#quarantine = new Quarantine(db);
  }

  /**
   * Opens the ledger in `directory` exclusively, making both (0700, 0600) if they are not there.
   * @throws StoreLockedError when another process has it open
   * @throws StoreMismatchError when its file is of a newer version or no ledger
   */
  static open(directory: string): Ledger {
    const lock = DirectoryLock.acquire(resolve(directory));
    try {
      return new Ledger(lock, openLedgerDatabase(lock.directory));
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /**
   * Counts the records and remembers the last one, in one transaction: all of it is durable when this returns, or
   * none of it happened.
   * @param source names the journal that they come from
   * @param receivedAt ms since 1970, by our clock
   * @returns what was counted, and how many records are new in quarantine
   * @throws SQLiteError when the disk is full or broken; count the same records again later
   */
  count(
    source: string,
    records: readonly StoredRecord[],
    receivedAt: number,
  ): Counted & { newlyQuarantined: number } {
    return this.#db
      .transaction(() => {
        const counted = countBatch(records, receivedAt, (instance) => this.#book.account(instance));
        for (const [instance, account] of counted.accounts) this.#book.setAccount(instance, account);
        for (const posting of counted.postings) this.#book.add(posting);
        const newlyQuarantined = this.#quarantine.add(source, receivedAt, counted.quarantined);
        const last = records.at(-1);
        if (last) this.#positions.set(source, { seq: last.seq, recordId: last.id });
        return { ...counted, newlyQuarantined };
      })
      .immediate();
  }

  /** The last record counted of that journal. */
  position(source: string): Position | undefined {
    return this.#positions.get(source);
  }

  usage(query: UsageQuery): UsageRow[] {
    return readUsage(this.#db, query);
  }

  /** Records ever put in quarantine, by kind. */
  quarantineCounts(): ReadonlyMap<string, number> {
    return this.#quarantine.counts();
  }

  close(): void {
    this.#book.close();
    this.#positions.close();
    this.#quarantine.close();
    this.#db.close();
    this.#lock.release();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
