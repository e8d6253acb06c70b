import type { Database, Statement } from "bun:sqlite";
import type { StoredRecord } from "../store.ts";

interface Row {
  seq: number;
  id: string;
  subject: string;
  headers: string;
  data: Uint8Array;
  at: number;
}

/** Some records, and how far the table was looked through for them. */
export interface JournalPage {
  readonly records: readonly StoredRecord[];
  /** Go on after this sequence, also when no record matched. */
  readonly scannedTo: number;
  /** Whether the table ended there. */
  readonly atEnd: boolean;
  /** Records behind it in the table, at most. */
  readonly pending: number;
}

/** Sequences that one filtered query may look through: a few milliseconds, however few records match. */
const SCAN_SEQS = 20_000;

/** The journal's table, read in pages. Each query ends at once, so readers never hold back the WAL's checkpoints. */
export class JournalRows {
  readonly #all: Statement<Row, [number, number]>;
  readonly #below: Statement<Row, [number, number, string, string, number]>;
  readonly #bounds: Statement<{ first: number | null; last: number | null }, []>;

  constructor(db: Database) {
    const columns = "SELECT seq, id, subject, headers, data, at FROM journal";
    this.#all = db.prepare(`${columns} WHERE seq > ? ORDER BY seq LIMIT ?`);
    this.#below = db.prepare(
      `${columns} WHERE seq > ? AND seq <= ? AND subject >= ? AND subject < ? ORDER BY seq LIMIT ?`,
    );
    // Two sub-selects, because SQLite looks up only one min or max per select in the index.
    this.#bounds = db.prepare(
      "SELECT (SELECT min(seq) FROM journal) AS first, (SELECT max(seq) FROM journal) AS last",
    );
  }

  /** Sequence of the newest record, 0 when there is none. */
  lastSeq(): number {
    return this.#bounds.get()?.last ?? 0;
  }

  page(after: number, limit: number, subjectPrefix: string | undefined): JournalPage {
    if (subjectPrefix === undefined) {
      const page = toPage(this.#all.all(after, limit), after, limit);
      return page.atEnd ? page : { ...page, pending: Math.max(0, this.lastSeq() - page.scannedTo) };
    }
    const { first, last } = this.#bounds.get() ?? { first: null, last: null };
    if (first === null || last === null || last <= after)
      return { records: [], scannedTo: after, atEnd: true, pending: 0 };
    const from = Math.max(after, first - 1);
    const to = Math.min(last, from + SCAN_SEQS);
    // "/" follows "." in ASCII: exactly the subjects that begin with the prefix and a dot.
    const page = toPage(
      this.#below.all(from, to, `${subjectPrefix}.`, `${subjectPrefix}/`, limit),
      to,
      limit,
    );
    const pending = Math.max(0, last - page.scannedTo);
    return { ...page, atEnd: page.atEnd && to === last, pending };
  }

  close(): void {
    this.#all.finalize();
    this.#below.finalize();
    this.#bounds.finalize();
  }
}

/** A full page may be followed by more; one that is not full has seen everything up to `seen`. */
function toPage(rows: readonly Row[], seen: number, limit: number): JournalPage {
  const records = rows.map((row) => ({
    seq: BigInt(row.seq),
    id: row.id,
    subject: row.subject,
    headers: JSON.parse(row.headers) as Record<string, string>,
    data: row.data,
    storedAt: row.at,
  }));
  const full = rows.length === limit;
  const last = rows.at(-1)?.seq ?? seen;
  return { records, scannedTo: full ? last : Math.max(last, seen), atEnd: !full, pending: 0 };
}
