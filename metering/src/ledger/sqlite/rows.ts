/** A file's rows: read as they stand at one moment while another process counts, or written into an empty ledger. */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { StoreMismatchError } from "@warren/store";
import { meterNames } from "../../core/meters.ts";
import { meterColumns } from "../columns.ts";
import type { LedgerRow } from "../rows.ts";
import { columnsOf, type MeterColumns, metersIn } from "./columns.ts";
import { checkSchema, ledgerPath } from "./database.ts";

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
  for (const row of each<MeterColumns & { account: string; tenant: string; started: bigint }>(
    `SELECT account, tenant, started, ${meterColumns} FROM accounts ORDER BY account`,
  )) {
    const { account, tenant, started } = row;
    yield { table: "account", account, tenant, started: started !== 0n, used: metersIn(row) };
  }
  for (const row of each<MeterColumns & { hour: bigint; tenant: string; account: string; starts: bigint }>(
    `SELECT hour, tenant, account, starts, ${meterColumns} FROM postings ORDER BY hour, tenant, account`,
  )) {
    const { hour, tenant, account, starts } = row;
    yield {
      table: "posting",
      hour: Number(hour),
      tenant,
      account,
      starts: Number(starts),
      used: metersIn(row),
    };
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
  account: `INSERT INTO accounts (account, tenant, started, ${meterColumns})
    VALUES (?, ?, ?, ${meterNames.map(() => "?").join(", ")})`,
  posting: `INSERT INTO postings (hour, tenant, account, starts, ${meterColumns})
    VALUES (?, ?, ?, ?, ${meterNames.map(() => "?").join(", ")})`,
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
    case "account":
      return [row.account, row.tenant, row.started ? 1 : 0, ...columnsOf(row.used)];
    case "posting":
      return [row.hour, row.tenant, row.account, row.starts, ...columnsOf(row.used)];
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
