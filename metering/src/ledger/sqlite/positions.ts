/** How far each journal was counted; written in the same transaction as what was counted. */
import type { Database, Statement } from "bun:sqlite";
import type { Position } from "../ledger.ts";

export class Positions {
  readonly #get: Statement<{ seq: bigint; record_id: string }, [string]>;
  readonly #set: Statement;

  constructor(db: Database) {
    this.#get = db.prepare("SELECT seq, record_id FROM positions WHERE source = ?");
    this.#set = db.prepare("INSERT OR REPLACE INTO positions (source, seq, record_id) VALUES (?, ?, ?)");
  }

  /** @param source names the journal, see source.ts */
  get(source: string): Position | undefined {
    const row = this.#get.get(source);
    return row ? { seq: row.seq, recordId: row.record_id } : undefined;
  }

  set(source: string, { seq, recordId }: Position): void {
    this.#set.run(source, seq, recordId);
  }

  close(): void {
    this.#get.finalize();
    this.#set.finalize();
  }
}
