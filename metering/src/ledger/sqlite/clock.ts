/** The ledger's own time. */
import type { Database, Statement } from "bun:sqlite";
import { freshClock, type LedgerClock } from "../../core/clock.ts";

export type ClockColumns = { days: string; day: bigint; fold_after: bigint };

export const clockIn = ({ days, day, fold_after }: ClockColumns): LedgerClock => ({
  days,
  day: Number(day),
  foldAfter: Number(fold_after),
});

export class Clock {
  readonly #get: Statement<ClockColumns, []>;
  readonly #set: Statement;
  readonly #foldAfter: number;

  /** @param foldAfter from now on, whatever it was */
  constructor(db: Database, foldAfter: number) {
    this.#foldAfter = foldAfter;
    this.#get = db.prepare("SELECT days, day, fold_after FROM clock");
    this.#set = db.prepare(
      `INSERT INTO clock (one, days, day, fold_after) VALUES (1, ?1, ?2, ?3)
       ON CONFLICT (one) DO UPDATE SET days = ?1, day = ?2, fold_after = ?3
       WHERE (days, fold_after) <> (?1, ?3)`,
    );
  }

  get(): LedgerClock {
    const row = this.#get.get();
    return row ? { ...clockIn(row), foldAfter: this.#foldAfter } : freshClock(this.#foldAfter);
  }

  set({ days, day, foldAfter }: LedgerClock): void {
    this.#set.run(days, day, foldAfter);
  }

  close(): void {
    this.#get.finalize();
    this.#set.finalize();
  }
}
