/** Budget alerts that the journal has. */
import type { Database } from "bun:sqlite";
import { alertsKeptMs } from "../alerts.ts";
import type { AlertMark } from "../ledger.ts";

/** @param month its beginning, ms since 1970 */
export function readAlerts(db: Database, month: number): AlertMark[] {
  return db
    .query<{ tenant: string; percent: bigint }, [number]>(
      "SELECT tenant, percent FROM alerts WHERE month = ?",
    )
    .all(month)
    .map(({ tenant, percent }) => ({ tenant, percent: Number(percent) }));
}

export function markAlerts(db: Database, month: number, marks: readonly AlertMark[]): void {
  db.transaction(() => {
    db.query("DELETE FROM alerts WHERE month < ?").run(month - alertsKeptMs);
    const mark = db.query("INSERT OR IGNORE INTO alerts (month, tenant, percent) VALUES (?, ?, ?)");
    for (const { tenant, percent } of marks) mark.run(month, tenant, percent);
  }).immediate();
}
