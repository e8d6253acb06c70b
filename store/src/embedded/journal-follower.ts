import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { pause } from "@warren/common/time";
import { checkReadOptions } from "../limits.ts";
import type { JournalBatch, JournalReader, ReadOptions } from "../store.ts";
import { anySignal, Backoff } from "../time.ts";
import { databasePath, schemaVersion, sqliteCode } from "./database.ts";
import { JournalRows } from "./journal-rows.ts";

const POLL_FIRST_MS = 20;
const POLL_MOST_MS = 200;

/** What only means "not now": the writer is just making, recovering or checkpointing the database. */
const PASSING = new Set([
  "SQLITE_BUSY",
  "SQLITE_BUSY_RECOVERY",
  "SQLITE_BUSY_SNAPSHOT",
  "SQLITE_LOCKED",
  "SQLITE_CANTOPEN",
]);

/**
 * Follows the journal from another process than the writer's. WAL lets it read while the writer writes; since nothing
 * tells it of new records, it looks every 20 to 200 ms. It writes nothing, so positions are the caller's to keep.
 */
export class JournalFollower implements JournalReader, AsyncDisposable {
  readonly #closed = new AbortController();

  constructor(readonly directory: string) {}

  async *read(options: ReadOptions): AsyncGenerator<JournalBatch, void, undefined> {
    const checked = checkReadOptions(options);
    const signal = anySignal(checked.signal, this.#closed.signal);
    const poll = new Backoff(POLL_FIRST_MS, POLL_MOST_MS);
    let after = checked.after;
    let open: OpenJournal | undefined;
    try {
      while (!signal.aborted) {
        const page = passing(() => {
          open ??= OpenJournal.open(this.directory);
          // A journal that does not exist yet ends at 0: what is written later comes to a reader from the "end" too.
          if (after === "end") after = open?.rows.lastSeq() ?? 0;
          return open?.rows.page(after, checked.batch, checked.subjectPrefix);
        });
        if (page !== undefined) after = page.scannedTo;
        if (page !== undefined && page.records.length > 0) {
          poll.reset();
          yield { records: page.records, pending: page.pending, ack: async () => {} };
        } else if (page === undefined || page.atEnd) {
          await pause(poll.next(), signal);
        }
      }
    } finally {
      open?.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
  }
}

class OpenJournal {
  private constructor(
    readonly db: Database,
    readonly rows: JournalRows,
  ) {}

  /** Undefined while there is no database, or none with its tables. @throws StoreMismatchError */
  static open(directory: string): OpenJournal | undefined {
    const path = databasePath(directory);
    if (!existsSync(path)) return undefined;
    const db = new Database(path, { readonly: true, strict: true });
    try {
      db.run("PRAGMA busy_timeout = 200");
      if (schemaVersion(db, path) > 0) return new OpenJournal(db, new JournalRows(db));
    } catch (error) {
      db.close();
      throw error;
    }
    db.close();
    return undefined;
  }

  close(): void {
    this.rows.close();
    this.db.close();
  }
}

function passing<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (PASSING.has(sqliteCode(error) ?? "")) return undefined;
    throw error;
  }
}
