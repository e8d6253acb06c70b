import type { Database, Statement } from "bun:sqlite";
import { monotonic } from "../time.ts";

/** How much of the journal is kept. What is over any bound goes, oldest first. */
export interface RetentionOptions {
  /** Milliseconds. Default 7 days. */
  readonly maxAgeMs: number;
  /** Default 5 million. */
  readonly maxRows: number;
  /** Bytes of the whole database in use. Default 8 GiB. */
  readonly maxBytes: number;
}

export const DEFAULT_RETENTION: RetentionOptions = {
  maxAgeMs: 7 * 24 * 3600 * 1000,
  maxRows: 5_000_000,
  maxBytes: 8 * 1024 ** 3,
};

/** Rows that one step removes: about a millisecond. */
const STEP_ROWS = 500;
/** Appends come with a step at most this often; a journal that grows faster than this trims is behind, not wrong. */
const STEP_EVERY_MS = 50;
const IDLE_STEP_EVERY_MS = 30_000;

/** Trims the journal in small steps, after appends and now and then when there are none. */
export class Retention {
  readonly #oldest: Statement<{ seq: number; at: number }, [number]>;
  readonly #last: Statement<{ seq: number | null }, []>;
  readonly #used: Statement<{ bytes: number }, []>;
  readonly #delete: Statement<unknown, [number]>;
  readonly #timer: NodeJS.Timeout;
  #lastStep = Number.NEGATIVE_INFINITY;

  constructor(
    db: Database,
    readonly options: RetentionOptions,
  ) {
    this.#oldest = db.prepare("SELECT seq, at FROM journal ORDER BY seq LIMIT ?");
    this.#last = db.prepare("SELECT max(seq) AS seq FROM journal");
    this.#used = db.prepare(
      "SELECT (p.page_count - f.freelist_count) * s.page_size AS bytes " +
        "FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    );
    this.#delete = db.prepare("DELETE FROM journal WHERE seq <= ?");
    this.#timer = setInterval(() => this.#step(), IDLE_STEP_EVERY_MS);
    this.#timer.unref();
  }

  afterAppend(): void {
    if (monotonic() - this.#lastStep >= STEP_EVERY_MS) this.#step();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const statement of [this.#oldest, this.#last, this.#used, this.#delete]) statement.finalize();
  }

  #step(): void {
    try {
      const upTo = this.#removable();
      if (upTo > 0) this.#delete.run(upTo);
    } catch {
      // A full disk or a lock: the records stay, and the next step tries again. The append itself has succeeded.
    }
    this.#lastStep = monotonic();
  }

  /** The sequence up to which this step removes; 0 for none. */
  #removable(): number {
    const oldest = this.#oldest.all(STEP_ROWS);
    const stepEnd = oldest.at(-1);
    if (stepEnd === undefined) return 0;
    const bytes = this.#used.get()?.bytes ?? 0;
    if (bytes > this.options.maxBytes) return stepEnd.seq;
    // Sequences have gaps, so their span is at least the number of rows: this keeps at most maxRows.
    const byRows = Math.min(stepEnd.seq, (this.#last.get()?.seq ?? 0) - this.options.maxRows);
    const expired = oldest.filter((row) => row.at < Date.now() - this.options.maxAgeMs).at(-1)?.seq ?? 0;
    return Math.max(byRows, expired, 0);
  }
}
