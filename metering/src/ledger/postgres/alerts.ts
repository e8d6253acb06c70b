/** Budget alerts that the journal has. */
import type { SQL } from "bun";
import type { AlertRow } from "../rows.ts";

/** Those that are there already stay. */
export async function addAlerts(sql: SQL, alerts: readonly Omit<AlertRow, "table">[]): Promise<void> {
  if (alerts.length === 0) return;
  await sql`
    INSERT INTO warren.alerts (month, tenant, percent)
    SELECT (alert->>'month')::bigint, alert->>'tenant', (alert->>'percent')::int
    FROM json_array_elements(${JSON.stringify(alerts)}::text::json) AS alert
    ON CONFLICT DO NOTHING`;
}
