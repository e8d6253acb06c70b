/** What was used, summed from the postings. */
import type { Database, SQLQueryBindings } from "bun:sqlite";
import { trafficMark } from "../../core/life.ts";
import { type MeterName, meterNames, meters } from "../../core/meters.ts";
import type { Cut } from "../../core/window.ts";
import { meterColumn } from "../columns.ts";
import type { UsageQuery, UsageRow } from "../ledger.ts";
import { joinSums, sumColumns } from "./u64.ts";

type Column = (typeof meterColumn)[MeterName];
type Sums = Record<`${Column}_high` | `${Column}_low`, bigint>;
type Row = Sums & { tenant: string; bucket: bigint; starts: bigint; instances: bigint };

const sums = meterNames.map((name) => sumColumns(meterColumn[name])).join(", ");

const buckets: Readonly<Record<Cut, string>> = {
  total: "0",
  hour: "hour",
  day: "hour / 24",
  month:
    "(strftime('%Y', hour * 3600, 'unixepoch') - 1970) * 12 + strftime('%m', hour * 3600, 'unixepoch') - 1",
};

/** By tenant, then bucket. */
export function readUsage(db: Database, query: UsageQuery): UsageRow[] {
  const { tenant, untilTenant, window, cut, limit, after } = query;
  const conditions = ["hour >= ?", "hour < ?"];
  const values: SQLQueryBindings[] = [window.fromHour, window.untilHour];
  if (tenant !== undefined) {
    conditions.push("tenant = ?");
    values.push(tenant);
  }
  if (untilTenant !== undefined) {
    conditions.push("tenant <= ?");
    values.push(untilTenant);
  }
  if (after) {
    conditions.push("tenant >= ?", `(tenant, ${buckets[cut]}) > (?, ?)`);
    values.push(after.tenant, after.tenant, after.bucket);
  }
  // Of some tenants all hours: SQLite would rather look through all tenants' hours.
  const some = tenant === undefined && (untilTenant !== undefined || after !== undefined);
  const table = some ? "postings INDEXED BY postings_by_tenant" : "postings";
  const rows = db
    .query<Row, SQLQueryBindings[]>(
      `SELECT tenant, ${buckets[cut]} AS bucket, ${sums}, sum(starts) AS starts,
         count(DISTINCT CASE WHEN instr(account, '${trafficMark}') = 0 THEN account END) + sum(instances) AS instances
       FROM ${table} WHERE ${conditions.join(" AND ")} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?`,
    )
    .all(...values, limit);
  return rows.map((row) => ({
    tenant: row.tenant,
    bucket: Number(row.bucket),
    used: meters((name) => joinSums(row[`${meterColumn[name]}_high`], row[`${meterColumn[name]}_low`])),
    starts: row.starts,
    instances: row.instances,
  }));
}

/** Goes from one tenant to the next by the index: what lies between, all their postings, is not read. */
export function readTenants(db: Database, after: string, limit: number): string[] {
  return db
    .query<{ tenant: string }, [string, number]>(
      `WITH RECURSIVE known (tenant) AS (
         SELECT min(tenant) FROM postings WHERE tenant > ?1
         UNION ALL
         SELECT (SELECT min(tenant) FROM postings WHERE tenant > known.tenant) FROM known WHERE known.tenant IS NOT NULL
       )
       SELECT tenant FROM known WHERE tenant IS NOT NULL LIMIT ?2`,
    )
    .all(after, limit)
    .map(({ tenant }) => tenant);
}
