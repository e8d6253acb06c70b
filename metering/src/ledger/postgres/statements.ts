/**
 * The statements that write. Each takes any number of rows as one JSON text: exact for what is beyond 64 bits, and one
 * prepared statement whatever the number.
 */
import type { SQL } from "bun";
import type { Account, Posting } from "../../core/account.ts";
import type { HourRow } from "../../core/fold.ts";
import { type MeterName, type Meters, meterNames, meters } from "../../core/meters.ts";
import { accountColumns, meterColumn, meterColumns } from "../columns.ts";
import type { PositionRow, QuarantinedRow, RunRow } from "../rows.ts";

export type MeterColumns = Record<(typeof meterColumn)[MeterName], string>;

export const metersIn = (row: MeterColumns): Meters => meters((name) => BigInt(row[meterColumn[name]]));

const columnsOf = (used: Meters) =>
  Object.fromEntries(meterNames.map((name) => [meterColumn[name], `${used[name]}`]));

const meterTypes = meterNames.map((name) => `${meterColumn[name]} numeric`).join(", ");
const each = (set: (column: string) => string): string =>
  meterNames.map((name) => `${meterColumn[name]} = ${set(meterColumn[name])}`).join(", ");

const excluded = (columns: string): string =>
  columns
    .split(", ")
    .map((column) => `${column} = excluded.${column}`)
    .join(", ");

/** PostgreSQL takes no NUL in a text, and no half of a surrogate pair. Only what is no event of ours has such. */
const fit = (text: string): string => text.toWellFormed().replaceAll("\0", "\ufffd");

/** @returns the rows of a RETURNING, which the caller knows */
export const write = async <Returned = never>(
  sql: SQL,
  statement: string,
  rows: readonly object[],
): Promise<Returned[]> => (rows.length === 0 ? [] : await sql.unsafe(statement, [JSON.stringify(rows)]));

const accountTypes = `tenant text, started boolean, ${meterTypes},
  seen bigint, first_hour bigint, last_hour bigint, from_hour bigint`;

/** A row of {@link accountColumns}, as the driver gives it. */
export type FoundAccount = MeterColumns & {
  readonly account: string;
  readonly tenant: string;
  readonly started: boolean;
  readonly seen: bigint;
  readonly first_hour: bigint;
  readonly last_hour: bigint;
  readonly from_hour: bigint;
};

export const accountIn = (row: FoundAccount): Account => ({
  tenant: row.tenant,
  started: row.started,
  used: metersIn(row),
  seen: Number(row.seen),
  firstHour: Number(row.first_hour),
  lastHour: Number(row.last_hour),
  fromHour: Number(row.from_hour),
});

export const setAccounts = (sql: SQL, accounts: Iterable<readonly [key: string, account: Account]>) =>
  write(
    sql,
    `INSERT INTO warren.accounts (account, ${accountColumns})
     SELECT account, ${accountColumns}
     FROM json_to_recordset($1::text::json) AS r(account text, ${accountTypes})
     ON CONFLICT (account) DO UPDATE SET ${excluded(accountColumns)}`,
    [...accounts].map(([account, { tenant, started, used, seen, firstHour, lastHour, fromHour }]) => ({
      account,
      tenant,
      started,
      ...columnsOf(used),
      seen,
      first_hour: firstHour,
      last_hour: lastHour,
      from_hour: fromHour,
    })),
  );

export const hourColumns = `hour, tenant, account, starts, instances, ${meterColumns}`;

/** A row of {@link hourColumns}, likewise. */
export type FoundHour = MeterColumns & {
  readonly hour: bigint;
  readonly tenant: string;
  readonly account: string;
  readonly starts: bigint;
  readonly instances: bigint;
};

export const hourIn = (row: FoundHour): HourRow => ({
  hour: Number(row.hour),
  tenant: row.tenant,
  account: row.account,
  starts: Number(row.starts),
  instances: Number(row.instances),
  used: metersIn(row),
});

const writeHours = (sql: SQL, rows: readonly HourRow[], set: string) =>
  write(
    sql,
    `INSERT INTO warren.postings AS p (${hourColumns})
     SELECT ${hourColumns} FROM json_to_recordset($1::text::json)
       AS r(hour bigint, tenant text, account text, starts bigint, instances bigint, ${meterTypes})
     ON CONFLICT (tenant, hour, account) DO UPDATE SET ${set}`,
    rows.map(({ hour, tenant, account, starts, instances, used }) => ({
      hour,
      tenant,
      account,
      starts,
      instances,
      ...columnsOf(used),
    })),
  );

/** At most one per hour and account in one call. */
export const addPostings = (sql: SQL, postings: readonly Posting[]) =>
  writeHours(
    sql,
    postings.map(({ growth, ...rest }) => ({ ...rest, instances: 0, used: growth })),
    `starts = p.starts + excluded.starts, ${each((c) => `p.${c} + excluded.${c}`)}`,
  );

/** Likewise. */
export const setHours = (sql: SQL, rows: readonly HourRow[]) =>
  writeHours(sql, rows, excluded(`starts, instances, ${meterColumns}`));

export const setRuns = (sql: SQL, rows: readonly Omit<RunRow, "table">[]) =>
  write(
    sql,
    `INSERT INTO warren.runs (run, ranges, missing, last_at)
     SELECT run, ranges, missing, last_at
     FROM json_to_recordset($1::text::json) AS r(run text, ranges text, missing bigint, last_at bigint)
     ON CONFLICT (run) DO UPDATE
     SET ranges = excluded.ranges, missing = excluded.missing, last_at = excluded.last_at`,
    rows.map(({ run, ranges, missing, lastAt }) => ({ run, ranges, missing, last_at: lastAt })),
  );

export const setPositions = (sql: SQL, rows: readonly Omit<PositionRow, "table">[]) =>
  write(
    sql,
    `INSERT INTO warren.positions (source, seq, record_id)
     SELECT source, seq, record_id
     FROM json_to_recordset($1::text::json) AS r(source text, seq bigint, record_id text)
     ON CONFLICT (source) DO UPDATE SET seq = excluded.seq, record_id = excluded.record_id`,
    rows.map(({ source, seq, recordId }) => ({
      source: fit(source),
      seq: `${seq}`,
      record_id: fit(recordId),
    })),
  );

/** @returns the kinds of those that are new */
export const addQuarantined = async (
  sql: SQL,
  rows: readonly Omit<QuarantinedRow, "table">[],
): Promise<string[]> => {
  const added = await write<{ kind: string }>(
    sql,
    `INSERT INTO warren.quarantine (record_id, kind, reason, source, seq, stored_at, subject, headers, data)
     SELECT record_id, kind, reason, source, seq, stored_at, subject, headers, decode(data, 'base64')
     FROM json_to_recordset($1::text::json) AS r(record_id text, kind text, reason text, source text, seq bigint,
       stored_at bigint, subject text, headers text, data text)
     ON CONFLICT (record_id) DO NOTHING RETURNING kind`,
    rows.map(({ recordId, kind, reason, source, seq, storedAt, subject, headers, data }) => ({
      record_id: fit(recordId),
      kind,
      reason: fit(reason),
      source: fit(source),
      seq: `${seq}`,
      stored_at: storedAt,
      subject: fit(subject),
      headers: fit(headers),
      data: Buffer.from(data).toString("base64"),
    })),
  );
  return added.map(({ kind }) => kind);
};

export const addQuarantineCounts = (sql: SQL, counts: ReadonlyMap<string, number>) =>
  write(
    sql,
    `INSERT INTO warren.quarantine_counts AS q (kind, n)
     SELECT kind, n FROM json_to_recordset($1::text::json) AS r(kind text, n bigint)
     ON CONFLICT (kind) DO UPDATE SET n = q.n + excluded.n`,
    [...counts].map(([kind, n]) => ({ kind, n })),
  );
