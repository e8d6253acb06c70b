/** Which records of each producer's run were counted. */
import type { Database, Statement } from "bun:sqlite";
import type { Run } from "../../core/count.ts";
import { mostRuns } from "../../core/seen.ts";

type Row = { ranges: string; missing: bigint; last_at: bigint };

export class Runs {
  readonly #get: Statement<Row, [string]>;
  readonly #set: Statement;
  readonly #trim: Statement;
  readonly #missing: Statement<{ n: bigint }, []>;

  constructor(db: Database) {
    this.#get = db.prepare("SELECT ranges, missing, last_at FROM runs WHERE run = ?");
    this.#set = db.prepare("INSERT OR REPLACE INTO runs (run, ranges, missing, last_at) VALUES (?, ?, ?, ?)");
    this.#trim = db.prepare(
      "DELETE FROM runs WHERE run IN (SELECT run FROM runs ORDER BY last_at DESC, run DESC LIMIT -1 OFFSET ?)",
    );
    this.#missing = db.prepare("SELECT coalesce(sum(missing), 0) AS n FROM runs");
  }

  get(names: ReadonlySet<string>): Map<string, Run> {
    const found = new Map<string, Run>();
    for (const name of names) {
      const row = this.#get.get(name);
      if (!row) continue;
      const { ranges, missing, last_at } = row;
      found.set(name, { ranges, missing: Number(missing), lastAt: Number(last_at) });
    }
    return found;
  }

  set(runs: ReadonlyMap<string, Run>): void {
    for (const [name, { ranges, missing, lastAt }] of runs) this.#set.run(name, ranges, missing, lastAt);
  }

  /** Down to the bound; those heard of least lately go. */
  trim(): void {
    this.#trim.run(mostRuns);
  }

  missing(): number {
    return Number(this.#missing.get()?.n ?? 0n);
  }

  close(): void {
    for (const statement of [this.#get, this.#set, this.#trim, this.#missing]) statement.finalize();
  }
}
