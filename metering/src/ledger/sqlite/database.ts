/** The ledger's file. */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import { StoreMismatchError } from "@warren/store";
import { createPrivateFile } from "@warren/store/files";
import { trafficMark } from "../../core/life.ts";
import { meterNames } from "../../core/meters.ts";
import { meterColumn } from "../columns.ts";
import { unknownHour } from "../rows.ts";

/** "WARM": tells a ledger from any other SQLite file. */
const applicationId = 0x5741524d;
export const schemaVersion = 4;

const meterDefinitions = meterNames.map((name) => `${meterColumn[name]} INTEGER NOT NULL`).join(", ");

const runsTable = `
  -- Records that were counted, by their producer's run (core/seen.ts). Bounded, those heard of least lately go first.
  CREATE TABLE runs (
    run     TEXT PRIMARY KEY,
    ranges  TEXT NOT NULL,
    missing INTEGER NOT NULL,
    last_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX runs_by_last_at ON runs (last_at, run);
`;

const alertsTable = `
  -- Budget alerts that the journal has, by the beginning of their month.
  CREATE TABLE alerts (
    month   INTEGER NOT NULL,
    tenant  TEXT NOT NULL,
    percent INTEGER NOT NULL,
    PRIMARY KEY (month, tenant, percent)
  ) STRICT, WITHOUT ROWID;
`;

const clockTable = `
  -- The ledger's own time (core/clock.ts): one row, once something was counted.
  CREATE TABLE clock (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    days       TEXT NOT NULL,
    day        INTEGER NOT NULL,
    fold_after INTEGER NOT NULL
  ) STRICT;
`;

/** Meters as they were before there were volumes: a ledger on its way from the second version has no more. */
const metersOfThird = [
  "cpu_us",
  "memory_byte_seconds",
  "wall_ms",
  "frozen_ms",
  "thaws",
  "requests",
  "bytes_out",
];

/** Fills in what accounts did not have before they were folded. It looks through all postings. */
const completing = (columns: readonly string[]): string => `
  UPDATE accounts SET first_hour = found.first, last_hour = found.last, from_hour = found.first
    FROM (SELECT account AS key, min(hour) AS first, max(hour) AS last FROM postings GROUP BY account) AS found
    WHERE accounts.account = found.key AND accounts.first_hour = ${unknownHour};
  INSERT OR IGNORE INTO accounts (account, tenant, started, ${columns.join(", ")}, seen, first_hour, last_hour, from_hour)
    SELECT substr(account, 1, instr(account, '${trafficMark}')), '', 0, ${columns.map(() => "0").join(", ")},
      max(seen), min(first_hour), max(last_hour), min(from_hour)
    FROM accounts WHERE instr(account, '${trafficMark}') > 0 GROUP BY 1;
`;

export const completeAccounts = completing(meterNames.map((name) => meterColumn[name]));

/** The meters are u64 in SQLite's 64 bits: see u64.ts. Hours are hours since 1970, other times ms since 1970. */
const schema = `
  -- One per instance, per run of a gateway with one tenant, and per gateway (core/account.ts), until it is folded
  -- (core/fold.ts): about 180 bytes.
  CREATE TABLE accounts (
    account TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    started INTEGER NOT NULL,
    ${meterDefinitions},
    seen       INTEGER NOT NULL,
    first_hour INTEGER NOT NULL,
    last_hour  INTEGER NOT NULL,
    from_hour  INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX accounts_by_from_hour ON accounts (from_hour);
  -- One per hour in which an instance was seen, even if it used nothing; and of old hours one per tenant, with the number of
  -- folded instances that were first seen then. The hour first: new ones go to the end.
  CREATE TABLE postings (
    hour    INTEGER NOT NULL,
    tenant  TEXT NOT NULL,
    account TEXT NOT NULL,
    starts  INTEGER NOT NULL,
    ${meterDefinitions},
    instances INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, tenant, account)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX postings_by_tenant ON postings (tenant, hour);
  -- The last record counted of each journal; its id tells whether it is still the same journal.
  CREATE TABLE positions (
    source    TEXT PRIMARY KEY,
    seq       INTEGER NOT NULL,
    record_id TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  -- Bounded, the oldest go first; the counts stay.
  CREATE TABLE quarantine (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id   TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    reason      TEXT NOT NULL,
    source      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    stored_at   INTEGER NOT NULL,
    subject     TEXT NOT NULL,
    headers     TEXT NOT NULL,
    data        BLOB NOT NULL
  ) STRICT;
  CREATE TABLE quarantine_counts (kind TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  ${runsTable}
  ${alertsTable}
  ${clockTable}
`;

/** What brings a ledger of each version to the next one. */
const migrations: Readonly<Record<number, string>> = {
  // Accounts are not only of instances; three meters more; repeats are known by their ids; alerts.
  1: `
    ALTER TABLE accounts RENAME COLUMN instance TO account;
    ALTER TABLE postings RENAME COLUMN instance TO account;
    ${["accounts", "postings"]
      .flatMap((table) =>
        ["thaws", "requests", "bytes_out"].map(
          (column) => `ALTER TABLE ${table} ADD COLUMN ${column} INTEGER NOT NULL DEFAULT 0;`,
        ),
      )
      .join("\n    ")}
    ALTER TABLE quarantine RENAME COLUMN received_at TO stored_at;
    ${runsTable}
    ${alertsTable}
  `,
  // What is old is folded.
  2: `
    ${[
      "seen INTEGER NOT NULL DEFAULT 0",
      ...["first", "last", "from"].map((which) => `${which}_hour INTEGER NOT NULL DEFAULT ${unknownHour}`),
    ]
      .map((column) => `ALTER TABLE accounts ADD COLUMN ${column};`)
      .join("\n    ")}
    ALTER TABLE postings ADD COLUMN instances INTEGER NOT NULL DEFAULT 0;
    ${completing(metersOfThird)}
    CREATE INDEX accounts_by_from_hour ON accounts (from_hour);
    ${clockTable}
  `,
  // Volumes are counted.
  3: `
    ALTER TABLE accounts ADD COLUMN volume_byte_seconds INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE postings ADD COLUMN volume_byte_seconds INTEGER NOT NULL DEFAULT 0;
  `,
};

export const ledgerPath = (directory: string): string => join(directory, "ledger.db");

/**
 * Opens the ledger, making it (0600) if there is none, and bringing an older one to this version. The caller holds the directory's lock.
 * @throws StoreMismatchError when it is of a newer version or not a ledger; it is left as it is
 */
export function openLedgerDatabase(directory: string): Database {
  const path = ledgerPath(directory);
  createPrivateFile(path); // the -wal and -shm files get the same mode
  const db = new Database(path, { create: false, readwrite: true, strict: true, safeIntegers: true });
  try {
    db.run("PRAGMA busy_timeout = 2000"); // for somebody who looks in with the sqlite3 shell
    db.run("PRAGMA journal_mode = WAL");
    // A power failure may take the last commits, but position and totals together: they are counted again.
    db.run("PRAGMA synchronous = NORMAL");
    db.run("PRAGMA journal_size_limit = 67108864");
    db.transaction(() => prepare(db, path)).immediate();
    return db;
  } catch (error) {
    db.close();
    if ((error as { code?: unknown }).code === "SQLITE_NOTADB") {
      throw new StoreMismatchError(`${path} is not a Warren ledger: it is left as it is`, { cause: error });
    }
    throw error;
  }
}

function prepare(db: Database, path: string): void {
  const tables = db.query<{ n: bigint }, []>("SELECT count(*) AS n FROM sqlite_schema").get()?.n ?? 0n;
  if (tables === 0n) {
    db.run(schema);
    db.run(`PRAGMA application_id = ${applicationId}`);
    db.run(`PRAGMA user_version = ${schemaVersion}`);
    return;
  }
  const version = checkedVersion(db, path);
  for (let from = version; from < schemaVersion; from++) db.run(migrations[from]!);
  db.run(`PRAGMA user_version = ${schemaVersion}`);
}

/** @throws StoreMismatchError when it is not of exactly this version: for who only reads */
export function checkSchema(db: Database, path: string): void {
  const version = checkedVersion(db, path);
  if (version < schemaVersion) {
    throw new StoreMismatchError(
      `${path} has the older schema version ${version}: run metering on it once, which brings it to this one`,
    );
  }
}

/** @throws StoreMismatchError */
function checkedVersion(db: Database, path: string): number {
  if (pragma(db, "application_id") !== applicationId) {
    throw new StoreMismatchError(`${path} is not a Warren ledger: it is left as it is`);
  }
  const version = pragma(db, "user_version");
  if (version > schemaVersion) {
    throw new StoreMismatchError(
      `${path} has schema version ${version}, this program knows up to ${schemaVersion}: it is left as it is; ` +
        "run the newer Warren that wrote it",
    );
  }
  return version;
}

function pragma(db: Database, name: string): number {
  return Number(db.query<Record<string, bigint>, []>(`PRAGMA ${name}`).get()?.[name] ?? 0n);
}
