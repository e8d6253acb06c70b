/** The ledger's own time. */
import type { SQL } from "bun";
import { freshClock, type LedgerClock } from "../../core/clock.ts";

export const clockIn = (row: { days: string; day: bigint; fold_after: bigint }): LedgerClock => ({
  days: row.days,
  day: Number(row.day),
  foldAfter: Number(row.fold_after),
});

/** @param foldAfter from now on, whatever it was */
export async function readClock(sql: SQL, foldAfter: number): Promise<LedgerClock> {
  const [row] = await sql`SELECT days, day, fold_after FROM warren.clock`;
  return row ? { ...clockIn(row), foldAfter } : freshClock(foldAfter);
}

export async function setClock(sql: SQL, { days, day, foldAfter }: LedgerClock): Promise<void> {
  await sql`
    INSERT INTO warren.clock (one, days, day, fold_after) VALUES (1, ${days}, ${day}, ${foldAfter})
    ON CONFLICT (one) DO UPDATE SET days = excluded.days, day = excluded.day, fold_after = excluded.fold_after`;
}
