/** What was used, summed from the postings. */
import type { Database, SQLQueryBindings } from "bun:sqlite";
import { type MeterName, type Meters, meterNames, meters } from "../core/meters.ts";
import { type Cut, hoursPerBucket, type Window } from "../core/window.ts";
import { columnOf } from "./columns.ts";
import { joinSums, sumColumns } from "./u64.ts";

export interface UsageQuery {
  /** Only this tenant's; absent: all. */
  readonly tenant?: string;
  readonly window: Window;
  readonly cut: Cut;
  /** Most rows answered. */
  readonly limit: number;
}

export interface UsageRow {
  readonly tenant: string;
  /** Number of the hour or day since 1970; 0 in a total. */
  readonly bucket: number;
  /** Sums: each may be above 2^64. */
  readonly used: Meters;
  readonly starts: bigint;
  readonly instances: bigint;
}

type Column = (typeof columnOf)[MeterName];
type Sums = Record<`${Column}_high` | `${Column}_low`, bigint>;
type Row = Sums & { tenant: string; bucket: bigint; starts: bigint; instances: bigint };

const sums = meterNames.map((name) => sumColumns(columnOf[name])).join(", ");

/** By tenant, then bucket. */
export function readUsage(db: Database, query: UsageQuery): UsageRow[] {
  const { tenant, window, cut, limit } = query;
  const bucket = cut === "total" ? "0" : `hour / ${hoursPerBucket[cut]}`;
  const conditions = ["hour >= ?", "hour < ?", ...(tenant === undefined ? [] : ["tenant = ?"])];
  const values: SQLQueryBindings[] = [window.fromHour, window.untilHour];
  if (tenant !== undefined) values.push(tenant);
  const rows = db
    .query<Row, SQLQueryBindings[]>(
      `SELECT tenant, ${bucket} AS bucket, ${sums}, sum(starts) AS starts, count(DISTINCT instance) AS instances
       FROM postings WHERE ${conditions.join(" AND ")} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?`,
    )
    .all(...values, limit);
  return rows.map((row) => ({
    tenant: row.tenant,
    bucket: Number(row.bucket),
    used: meters((name) => joinSums(row[`${columnOf[name]}_high`], row[`${columnOf[name]}_low`])),
    starts: row.starts,
    instances: row.instances,
  }));
}
