/** A database's rows: read as they stand at one moment while another process counts, or written into an empty ledger. */
import type { SQL } from "bun";
import { accountColumns } from "../columns.ts";
import type { LedgerRow } from "../rows.ts";
import { addAlerts } from "./alerts.ts";
import { clockIn, setClock } from "./clock.ts";
import { PostgresConnection } from "./connection.ts";
import { completeAccounts } from "./schema.ts";
import {
  accountIn,
  addQuarantineCounts,
  addQuarantined,
  hourColumns,
  hourIn,
  setAccounts,
  setHours,
  setPositions,
  setRuns,
} from "./statements.ts";

/** Rows that are fetched, or written, at once; of quarantined ones, which may be large, fewer. */
const portion = 1_000;
const quarantinedPortion = 16;

// biome-ignore lint/suspicious/noExplicitAny: rows are as the statement says
type Found = any;

interface Table {
  readonly select: string;
  readonly portion: number;
  readonly toRow: (found: Found) => LedgerRow;
}

/** In the order of LedgerRow's tables, each table in the order of its key. */
const tables: readonly Table[] = [
  {
    select: "SELECT source, seq, record_id FROM warren.positions ORDER BY source",
    portion,
    toRow: ({ source, seq, record_id }) => ({
      table: "position",
      source,
      seq: BigInt(seq),
      recordId: record_id,
    }),
  },
  {
    select: "SELECT days, day, fold_after FROM warren.clock",
    portion,
    toRow: (row) => ({ table: "clock", ...clockIn(row) }),
  },
  {
    select: `SELECT account, ${accountColumns} FROM warren.accounts ORDER BY account`,
    portion,
    toRow: (row) => ({ table: "account", account: row.account, ...accountIn(row) }),
  },
  {
    select: `SELECT ${hourColumns} FROM warren.postings ORDER BY hour, tenant, account`,
    portion,
    toRow: (row) => ({ table: "posting", ...hourIn(row) }),
  },
  {
    select: "SELECT run, ranges, missing, last_at FROM warren.runs ORDER BY run",
    portion,
    toRow: ({ run, ranges, missing, last_at }) => ({
      table: "run",
      run,
      ranges,
      missing: Number(missing),
      lastAt: Number(last_at),
    }),
  },
  {
    select: "SELECT month, tenant, percent FROM warren.alerts ORDER BY month, tenant, percent",
    portion,
    toRow: ({ month, tenant, percent }) => ({ table: "alert", month: Number(month), tenant, percent }),
  },
  {
    select: "SELECT kind, n FROM warren.quarantine_counts ORDER BY kind",
    portion,
    toRow: ({ kind, n }) => ({ table: "quarantine-count", kind, n: Number(n) }),
  },
  {
    select: `SELECT record_id, kind, reason, source, seq, stored_at, subject, headers, data
      FROM warren.quarantine ORDER BY n`,
    portion: quarantinedPortion,
    toRow: ({ record_id, stored_at, seq, data, kind, reason, source, subject, headers }) => ({
      table: "quarantined",
      recordId: record_id,
      kind,
      reason,
      source,
      seq: BigInt(seq),
      storedAt: Number(stored_at),
      subject,
      headers,
      data: new Uint8Array(data),
    }),
  },
];

/**
 * All rows. Takes no lock.
 * @throws what {@link PostgresConnection.snapshot} throws
 */
export function postgresRows(url: string): AsyncGenerator<LedgerRow, void, undefined> {
  return PostgresConnection.snapshot(url, async function* (sql) {
    for (const { select, portion, toRow } of tables) {
      await sql.unsafe(`DECLARE rows NO SCROLL CURSOR FOR ${select}`);
      for (;;) {
        const found = await sql.unsafe(`FETCH ${portion} FROM rows`);
        for (const row of found) yield toRow(row);
        if (found.length < portion) break;
      }
      await sql.unsafe("CLOSE rows");
    }
  });
}

/** Writes them all. The caller holds the transaction, and has found the ledger empty. */
export async function writeRows(sql: SQL, rows: AsyncIterable<LedgerRow>): Promise<void> {
  let some: LedgerRow[] = [];
  const flush = async () => {
    if (some.length > 0) await writePortion(sql, some);
    some = [];
  };
  for await (const row of rows) {
    if (some.length > 0 && some[0]!.table !== row.table) await flush();
    some.push(row);
    if (some.length >= (row.table === "quarantined" ? quarantinedPortion : portion)) await flush();
  }
  await flush();
  await completeAccounts(sql);
}

/** Rows of one table. */
async function writePortion(sql: SQL, rows: readonly LedgerRow[]): Promise<void> {
  const of = <T extends LedgerRow["table"]>(table: T) =>
    rows.filter((row): row is Extract<LedgerRow, { table: T }> => row.table === table);
  await setPositions(sql, of("position"));
  for (const clock of of("clock")) await setClock(sql, clock);
  await setAccounts(
    sql,
    of("account").map((row) => [row.account, row]),
  );
  await setHours(sql, of("posting"));
  await setRuns(sql, of("run"));
  await addAlerts(sql, of("alert"));
  await addQuarantineCounts(sql, new Map(of("quarantine-count").map(({ kind, n }) => [kind, n])));
  await addQuarantined(sql, of("quarantined"));
}
