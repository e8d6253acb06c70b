/** A file's rows: read as they stand at one moment while another process counts, or written into an empty ledger. */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { StoreMismatchError } from "@warren/store";
import { accountColumns } from "../columns.ts";
import { type LedgerRow, unknownHour } from "../rows.ts";
import {
  type AccountColumns,
  accountIn,
  accountValues,
  type HourColumns,
  hourColumns,
  hourIn,
  hourValues,
  insertAccount,
  insertHour,
} from "./book.ts";
import { type ClockColumns, clockIn } from "./clock.ts";
import { checkSchema, completeAccounts, ledgerPath } from "./database.ts";

/**
 * All rows, in the order of LedgerRow's tables, each table in the order of its key. Takes no lock.
 * @throws StoreMismatchError when there is no ledger of this version
 */
export async function* sqliteRows(directory: string): AsyncGenerator<LedgerRow, void, undefined> {
  const path = ledgerPath(directory);
  if (!existsSync(path)) throw new StoreMismatchError(`there is no ledger ${path}`);
  using db = new Database(path, { readonly: true, strict: true, safeIntegers: true });
  db.run("PRAGMA busy_timeout = 2000");
  checkSchema(db, path);
  // Read as one: the writer goes on beside it.
  db.run("BEGIN");
  yield* rowsIn(db);
}

function* rowsIn(db: Database): Generator<LedgerRow> {
  const each = <Row>(sql: string) => db.prepare<Row, []>(sql).iterate();
  for (const { source, seq, record_id } of each<{ source: string; seq: bigint; record_id: string }>(
    "SELECT source, seq, record_id FROM positions ORDER BY source",
  )) {
    yield { table: "position", source, seq, recordId: record_id };
  }
  for (const row of each<ClockColumns>("SELECT days, day, fold_after FROM clock")) {
    yield { table: "clock", ...clockIn(row) };
  }
  for (const row of each<AccountColumns & { account: string }>(
    `SELECT account, ${accountColumns} FROM accounts ORDER BY account`,
  )) {
    yield { table: "account", account: row.account, ...accountIn(row) };
  }
  for (const row of each<HourColumns>(`SELECT ${hourColumns} FROM postings ORDER BY hour, tenant, account`)) {
    yield { table: "posting", ...hourIn(row) };
  }
  for (const { run, ranges, missing, last_at } of each<{
    run: string;
    ranges: string;
    missing: bigint;
    last_at: bigint;
  }>("SELECT run, ranges, missing, last_at FROM runs ORDER BY run")) {
    yield { table: "run", run, ranges, missing: Number(missing), lastAt: Number(last_at) };
  }
  for (const { month, tenant, percent } of each<{ month: bigint; tenant: string; percent: bigint }>(
    "SELECT month, tenant, percent FROM alerts ORDER BY month, tenant, percent",
  )) {
    yield { table: "alert", month: Number(month), tenant, percent: Number(percent) };
  }
  for (const { kind, n } of each<{ kind: string; n: bigint }>(
    "SELECT kind, n FROM quarantine_counts ORDER BY kind",
  )) {
    yield { table: "quarantine-count", kind, n: Number(n) };
  }
  for (const { record_id, stored_at, ...row } of each<{
    record_id: string;
    kind: string;
    reason: string;
    source: string;
    seq: bigint;
    stored_at: bigint;
    subject: string;
    headers: string;
    data: Uint8Array;
  }>(
    "SELECT record_id, kind, reason, source, seq, stored_at, subject, headers, data FROM quarantine ORDER BY n",
  )) {
    yield { table: "quarantined", recordId: record_id, storedAt: Number(stored_at), ...row };
  }
}

const inserts = {
  position: "INSERT INTO positions (source, seq, record_id) VALUES (?, ?, ?)",
  clock: "INSERT INTO clock (one, days, day, fold_after) VALUES (1, ?, ?, ?)",
  account: insertAccount,
  posting: insertHour,
  run: "INSERT INTO runs (run, ranges, missing, last_at) VALUES (?, ?, ?, ?)",
  alert: "INSERT INTO alerts (month, tenant, percent) VALUES (?, ?, ?)",
  "quarantine-count": "INSERT INTO quarantine_counts (kind, n) VALUES (?, ?)",
  quarantined: `INSERT INTO quarantine (record_id, kind, reason, source, seq, stored_at, subject, headers, data)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
} as const satisfies Record<LedgerRow["table"], string>;

/** Writes them all, or, when the rows fail, none. The ledger must be empty, and used by nobody meanwhile. */
export async function writeRows(db: Database, rows: AsyncIterable<LedgerRow>): Promise<void> {
  db.run("BEGIN IMMEDIATE");
  try {
    // `query` keeps the statement for the next row.
    for await (const row of rows) db.query(inserts[row.table]).run(...valuesOf(row));
    const incomplete = db.query("SELECT 1 FROM accounts WHERE from_hour = ? LIMIT 1").get(unknownHour);
    if (incomplete) db.run(completeAccounts);
    db.run("COMMIT");
  } catch (error) {
    db.run("ROLLBACK");
    throw error;
  }
}

function valuesOf(row: LedgerRow): (string | number | bigint | Uint8Array)[] {
  switch (row.table) {
    case "position":
      return [row.source, row.seq, row.recordId];
    case "clock":
      return [row.days, row.day, row.foldAfter];
    case "account":
      return accountValues(row.account, row);
    case "posting":
      return hourValues(row);
    case "run":
      return [row.run, row.ranges, row.missing, row.lastAt];
    case "alert":
      return [row.month, row.tenant, row.percent];
    case "quarantine-count":
      return [row.kind, row.n];
    case "quarantined": {
      const { recordId, kind, reason, source, seq, storedAt, subject, headers, data } = row;
      return [recordId, kind, reason, source, seq, storedAt, subject, headers, data];
    }
  }
}
