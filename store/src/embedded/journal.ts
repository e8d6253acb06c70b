import type { Database, Statement } from "bun:sqlite";
import { StoreUnavailableError } from "../errors.ts";
import {
  checkDeadline,
  checkReadOptions,
  checkRecords,
  DEFAULT_DEADLINE_MS,
  LIMITS,
  recordBytes,
} from "../limits.ts";
import { Notifier } from "../notifier.ts";
import type { Journal, JournalBatch, JournalRecord, ReadOptions } from "../store.ts";
import { anySignal, Deadline, nextTurn } from "../time.ts";
import { JournalRows } from "./journal-rows.ts";
import { Retention, type RetentionOptions } from "./retention.ts";

/** An append that waits for the next commit. */
interface Waiting {
  readonly records: readonly JournalRecord[];
  readonly bytes: number;
  readonly deadline: Deadline;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** At most about this many records go into one commit, so that it does not hold up the event loop for long. */
const COMMIT_RECORDS = 4096;

/**
 * The journal of the process that writes it. Appends that come in one turn of the event loop share one commit, hence
 * one sync of the disk.
 */
export class EmbeddedJournal implements Journal {
  readonly #insert: Statement;
  readonly #rows: JournalRows;
  readonly #retention: Retention;
  readonly #wake = new Notifier();
  readonly #closed = new AbortController();
  #queue: Waiting[] = [];
  #queuedRecords = 0;
  #queuedBytes = 0;
  #scheduled = false;

  constructor(
    readonly db: Database,
    retention: RetentionOptions,
  ) {
    this.#insert = db.prepare(
      "INSERT INTO journal (id, subject, headers, data, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    );
    this.#rows = new JournalRows(db);
    this.#retention = new Retention(db, retention);
  }

  async append(records: readonly JournalRecord[], options: { deadlineMs?: number } = {}): Promise<void> {
    checkRecords(records);
    const deadline = new Deadline(checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS));
    if (this.#closed.signal.aborted) throw new StoreUnavailableError("the store is closed");
    if (records.length === 0) return;
    const bytes = records.reduce((sum, record) => sum + recordBytes(record), 0);
    if (
      this.#queuedRecords + records.length > LIMITS.queuedRecords ||
      this.#queuedBytes + bytes > LIMITS.queuedBytes
    ) {
      throw new StoreUnavailableError(`${this.#queuedRecords} records wait to be stored already`);
    }
    this.#queuedRecords += records.length;
    this.#queuedBytes += bytes;
    await new Promise<void>((resolve, reject) => {
      this.#queue.push({ records, bytes, deadline, resolve, reject });
      this.#schedule();
    });
  }

  async *read(options: ReadOptions): AsyncGenerator<JournalBatch, void, undefined> {
    const checked = checkReadOptions(options);
    const signal = anySignal(checked.signal, this.#closed.signal);
    let after = checked.after === "end" ? this.#rows.lastSeq() : checked.after;
    while (!signal.aborted) {
      const seen = this.#wake.version;
      const page = this.#rows.page(after, checked.batch, checked.subjectPrefix);
      after = page.scannedTo;
      if (page.records.length > 0)
        yield { records: page.records, pending: page.pending, ack: async () => {} };
      else if (page.atEnd) await this.#wake.after(seen, signal);
      else await nextTurn();
    }
  }

  async lastSeq(): Promise<bigint> {
    return BigInt(this.#rows.lastSeq());
  }

  close(): void {
    this.#commit(); // what was accepted is still stored
    this.#closed.abort();
    for (const waiting of this.#queue.splice(0))
      waiting.reject(new StoreUnavailableError("the store is closed"));
    this.#retention.stop();
    this.#insert.finalize();
    this.#rows.close();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#closed.signal.aborted) return;
      this.#commit();
      if (this.#queue.length > 0) this.#schedule();
    });
  }

  #commit(): void {
    const group = this.#takeGroup();
    if (group.length === 0) return;
    try {
      const at = Date.now();
      this.db
        .transaction(() => {
          for (const { records } of group) {
            for (const record of records) {
              this.#insert.run(record.id, record.subject, JSON.stringify(record.headers), record.data, at);
            }
          }
        })
        .immediate();
    } catch (cause) {
      const error = new StoreUnavailableError(
        `the journal could not be written: ${(cause as Error).message}`,
        { cause },
      );
      for (const waiting of group) waiting.reject(error);
      return;
    }
    for (const waiting of group) waiting.resolve();
    this.#wake.notify();
    this.#retention.afterAppend();
  }

  /** The first appends of the queue, without those whose deadline has passed: these are refused, not stored. */
  #takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    let records = 0;
    while (records < COMMIT_RECORDS) {
      const waiting = this.#queue.shift();
      if (waiting === undefined) break;
      this.#queuedRecords -= waiting.records.length;
      this.#queuedBytes -= waiting.bytes;
      if (waiting.deadline.passed) {
        waiting.reject(new StoreUnavailableError(`not stored within ${waiting.deadline.ms} ms`));
        continue;
      }
      records += waiting.records.length;
      group.push(waiting);
    }
    return group;
  }
}
