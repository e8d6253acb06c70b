/**
 * The statements that write. Each takes any number of rows as one JSON text: exact for what is beyond 64 bits, and one
 * prepared statement whatever the number.
 */
import type { SQL } from "bun";
import { type MeterName, type Meters, meterNames, meters } from "../../core/meters.ts";
import { meterColumn, meterColumns } from "../columns.ts";
import type { AccountRow, PositionRow, PostingRow, QuarantinedRow, RunRow } from "../rows.ts";

export type MeterColumns = Record<(typeof meterColumn)[MeterName], string>;

export const metersIn = (row: MeterColumns): Meters => meters((name) => BigInt(row[meterColumn[name]]));

const columnsOf = (used: Meters) =>
  Object.fromEntries(meterNames.map((name) => [meterColumn[name], `${used[name]}`]));

const meterTypes = meterNames.map((name) => `${meterColumn[name]} numeric`).join(", ");
const each = (set: (column: string) => string): string =>
  meterNames.map((name) => `${meterColumn[name]} = ${set(meterColumn[name])}`).join(", ");

/** PostgreSQL takes no NUL in a text, and no half of a surrogate pair. Only what is no event of ours has such. */
const fit = (text: string): string => text.toWellFormed().replaceAll("\0", "\ufffd");

/** @returns the rows of a RETURNING */
// biome-ignore lint/suspicious/noExplicitAny: rows are as the statement says
const write = async (sql: SQL, statement: string, rows: readonly object[]): Promise<any[]> =>
  rows.length === 0 ? [] : await sql.unsafe(statement, [JSON.stringify(rows)]);

export const setAccounts = (sql: SQL, rows: readonly Omit<AccountRow, "table">[]) =>
  write(
    sql,
    `INSERT INTO warren.accounts (account, tenant, started, ${meterColumns})
     SELECT account, tenant, started, ${meterColumns}
     FROM json_to_recordset($1::text::json) AS r(account text, tenant text, started boolean, ${meterTypes})
     ON CONFLICT (account) DO UPDATE SET started = excluded.started, ${each((c) => `excluded.${c}`)}`,
    rows.map(({ account, tenant, started, used }) => ({ account, tenant, started, ...columnsOf(used) })),
  );

/** At most one per hour and account in one call. */
export const addPostings = (sql: SQL, rows: readonly Omit<PostingRow, "table">[]) =>
  write(
    sql,
    `INSERT INTO warren.postings AS p (hour, tenant, account, starts, ${meterColumns})
     SELECT hour, tenant, account, starts, ${meterColumns}
     FROM json_to_recordset($1::text::json)
       AS r(hour bigint, tenant text, account text, starts bigint, ${meterTypes})
     ON CONFLICT (tenant, hour, account)
     DO UPDATE SET starts = p.starts + excluded.starts, ${each((c) => `p.${c} + excluded.${c}`)}`,
    rows.map(({ hour, tenant, account, starts, used }) => ({
      hour,
      tenant,
      account,
      starts,
      ...columnsOf(used),
    })),
  );

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
  const added = await write(
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
