/** The ledger in a file, for one host: `ledger.db` in a directory that this process alone has open. */
import type { Database } from "bun:sqlite";
import { resolve } from "node:path";
import type { StoredRecord } from "@warren/store";
import { DirectoryLock } from "@warren/store/directory-lock";
import { defaultFoldAfter } from "../../core/clock.ts";
import { countBatch, readBatch } from "../../core/count.ts";
import {
  type AlertMark,
  type Counting,
  type Folded,
  isNotEmpty,
  type Ledger,
  type Position,
  type UsageQuery,
  type UsageRow,
} from "../ledger.ts";
import type { LedgerRow } from "../rows.ts";
import { markAlerts, readAlerts } from "./alerts.ts";
import { Book } from "./book.ts";
import { Clock } from "./clock.ts";
import { openLedgerDatabase } from "./database.ts";
import { foldSome } from "./fold.ts";
import { Positions } from "./positions.ts";
import { Quarantine } from "./quarantine.ts";
import { sqliteRows, writeRows } from "./rows.ts";
import { Runs } from "./runs.ts";
import { readTenants, readUsage } from "./usage.ts";

export class SqliteLedger implements Ledger {
  readonly #lock: DirectoryLock;
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #book: Book;
  readonly #runs: Runs;
  readonly #positions: Positions;
  readonly #quarantine: Quarantine;

  private constructor(lock: DirectoryLock, db: Database, foldAfter: number) {
    this.#lock = lock;
    this.#db = db;
    this.#clock = new Clock(db, foldAfter);
    this.#book = new Book(db);
    this.#runs = new Runs(db);
    this.#positions = new Positions(db);
    this.#quarantine = new Quarantine(db);
  }

  /**
   * Opens the ledger in `directory` exclusively, making both (0700, 0600) if they are not there. One of an earlier version
   * is brought to this one.
   * @param foldAfter see {@link LedgerClock}
   * @throws StoreLockedError when another process has it open
   * @throws StoreMismatchError when its file is of a newer version or no ledger
   */
  static open(directory: string, foldAfter = defaultFoldAfter): SqliteLedger {
    const lock = DirectoryLock.acquire(resolve(directory));
    try {
      return new SqliteLedger(lock, openLedgerDatabase(lock.directory), foldAfter);
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async count(source: string, records: readonly StoredRecord[]): Promise<Counting> {
    const batch = readBatch(records);
    return this.#db
      .transaction(() => {
        const standing = {
          accounts: this.#book.accounts(batch.accounts),
          runs: this.#runs.get(batch.runs),
          clock: this.#clock.get(),
        };
        const counted = countBatch(batch, standing);
        for (const [key, account] of counted.accounts) this.#book.setAccount(key, account);
        for (const posting of counted.postings) this.#book.add(posting);
        this.#clock.set(counted.clock);
        this.#runs.set(counted.runs);
        if (counted.runs.size > standing.runs.size) this.#runs.trim();
        const newlyQuarantined = this.#quarantine.add(source, counted.quarantined);
        const last = records.at(-1);
        if (last) this.#positions.set(source, { seq: last.seq, recordId: last.id });
        return { ...counted, newlyQuarantined };
      })
      .immediate();
  }

  async fold(): Promise<Folded> {
    return this.#db.transaction(() => foldSome(this.#book, this.#clock.get())).immediate();
  }

  async position(source: string): Promise<Position | undefined> {
    return this.#positions.get(source);
  }

  async usage(query: UsageQuery): Promise<UsageRow[]> {
    return readUsage(this.#db, query);
  }

  async tenants(after: string, limit: number): Promise<string[]> {
    return readTenants(this.#db, after, limit);
  }

  async alerts(month: number): Promise<AlertMark[]> {
    return readAlerts(this.#db, month);
  }

  async markAlerts(month: number, marks: readonly AlertMark[]): Promise<void> {
    markAlerts(this.#db, month, marks);
  }

  async quarantineCounts(): Promise<ReadonlyMap<string, number>> {
    return this.#quarantine.counts();
  }

  async missing(): Promise<number> {
    return this.#runs.missing();
  }

  async restore(rows: AsyncIterable<LedgerRow>): Promise<void> {
    for await (const _ of sqliteRows(this.#lock.directory)) throw isNotEmpty(this.#lock.directory);
    await writeRows(this.#db, rows);
  }

  async close(): Promise<void> {
    this.#clock.close();
    this.#book.close();
    this.#runs.close();
    this.#positions.close();
    this.#quarantine.close();
    this.#db.close();
    this.#lock.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
