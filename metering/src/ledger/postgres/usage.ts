/** What was used, summed from the postings. */
import type { SQL } from "bun";
import { trafficMark } from "../../core/life.ts";
import { meterNames } from "../../core/meters.ts";
import type { Cut } from "../../core/window.ts";
import { meterColumn } from "../columns.ts";
import type { UsageQuery, UsageRow } from "../ledger.ts";
import { type MeterColumns, metersIn } from "./statements.ts";

const sums = meterNames.map((name) => `sum(${meterColumn[name]}) AS ${meterColumn[name]}`).join(", ");
const month = "timezone('UTC', to_timestamp(hour * 3600))";
const buckets: Readonly<Record<Cut, string>> = {
  total: "0::bigint",
  hour: "hour",
  day: "hour / 24",
  month: `((extract(year FROM ${month}) - 1970) * 12 + extract(month FROM ${month}) - 1)::bigint`,
};

type Row = MeterColumns & { tenant: string; bucket: bigint; starts: string; instances: bigint };

/** By tenant, then bucket. */
export async function readUsage(sql: SQL, query: UsageQuery): Promise<UsageRow[]> {
  const { tenant, untilTenant, window, cut, limit, after } = query;
  const values: unknown[] = [window.fromHour, window.untilHour, limit];
  const conditions = ["hour >= $1", "hour < $2"];
  const value = (of: unknown) => `$${values.push(of)}`;
  if (tenant !== undefined) conditions.push(`tenant = ${value(tenant)}`);
  if (untilTenant !== undefined) conditions.push(`tenant <= ${value(untilTenant)}`);
  if (after) {
    const from = value(after.tenant);
    conditions.push(`tenant >= ${from}`, `(tenant > ${from} OR ${buckets[cut]} > ${value(after.bucket)})`);
  }
  const rows: Row[] = await sql.unsafe(
    `SELECT tenant, ${buckets[cut]} AS bucket, ${sums}, sum(starts)::text AS starts,
       (count(DISTINCT account) FILTER (WHERE strpos(account, '${trafficMark}') = 0) + sum(instances))::bigint AS instances
     FROM warren.postings WHERE ${conditions.join(" AND ")} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $3`,
    values,
  );
  return rows.map((row) => ({
    tenant: row.tenant,
    bucket: Number(row.bucket),
    used: metersIn(row),
    starts: BigInt(row.starts),
    instances: BigInt(row.instances),
  }));
}

/** Goes from one tenant to the next by the index: what lies between, all their postings, is not read. */
export async function readTenants(sql: SQL, after: string, limit: number): Promise<string[]> {
  const rows: { tenant: string }[] = await sql`
    WITH RECURSIVE known (tenant) AS (
      (SELECT tenant FROM warren.postings WHERE tenant > ${after} ORDER BY tenant LIMIT 1)
      UNION ALL
      SELECT (SELECT p.tenant FROM warren.postings p WHERE p.tenant > known.tenant ORDER BY p.tenant LIMIT 1)
      FROM known WHERE known.tenant IS NOT NULL
    )
    SELECT tenant FROM known WHERE tenant IS NOT NULL LIMIT ${limit}`;
  return rows.map(({ tenant }) => tenant);
}
