/** Records that a person should look at: the newest whole, of the others their number by kind. */
import type { Database, Statement } from "bun:sqlite";
import type { Quarantined } from "../../core/count.ts";
import { quarantineRows } from "../quarantine.ts";

export class Quarantine {
  readonly #add: Statement;
  readonly #count: Statement;
  readonly #trim: Statement;
  readonly #counts: Statement<{ kind: string; n: bigint }, []>;

  constructor(db: Database) {
    this.#add = db.prepare(
      `INSERT INTO quarantine (record_id, kind, reason, source, seq, stored_at, subject, headers, data)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (record_id) DO NOTHING`,
    );
    this.#count = db.prepare(
      "INSERT INTO quarantine_counts VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET n = n + 1",
    );
    this.#trim = db.prepare(
      "DELETE FROM quarantine WHERE n <= (SELECT n FROM quarantine ORDER BY n DESC LIMIT 1 OFFSET ?)",
    );
    this.#counts = db.prepare("SELECT kind, n FROM quarantine_counts");
  }

  /**
   * A record that is there already, because the journal was read again, is not counted again.
   * @returns how many of them are new
   */
  add(source: string, quarantined: readonly Quarantined[]): number {
    let added = 0;
    for (const { kind, reason, record } of quarantined) {
      const { id, seq, storedAt, subject, headers, data } = record;
      const text = JSON.stringify(headers);
      const { changes } = this.#add.run(id, kind, reason, source, seq, storedAt, subject, text, data);
      if (changes === 0) continue;
      added++;
      this.#count.run(kind);
    }
    if (added > 0) this.#trim.run(quarantineRows);
    return added;
  }

  /** Ever put here, by kind. */
  counts(): ReadonlyMap<string, number> {
    return new Map(this.#counts.all().map(({ kind, n }) => [kind, Number(n)]));
  }

  close(): void {
    for (const statement of [this.#add, this.#count, this.#trim, this.#counts]) statement.finalize();
  }
}
