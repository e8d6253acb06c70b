/** The ledger's tables: in a schema of their own, one ledger per database. */
import { StoreMismatchError } from "@warren/store";
import type { SQL } from "bun";
import { trafficMark } from "../../core/life.ts";
import { meterNames } from "../../core/meters.ts";
import { meterColumn } from "../columns.ts";
import { unknownHour } from "../rows.ts";

export const schemaVersion = 3;

/** A u64, and sums of such. */
const meterDefinitions = meterNames
  .map((name) => `${meterColumn[name]} numeric NOT NULL CHECK (${meterColumn[name]} >= 0)`)
  .join(", ");

/** Compared by bytes, as everywhere else in Warren, whatever the database's language is. */
const key = 'text COLLATE "C" NOT NULL';

const clockTable = `
  -- The ledger's own time (core/clock.ts): one row, once something was counted.
  CREATE TABLE warren.clock (
    one        int PRIMARY KEY CHECK (one = 1),
    days       text NOT NULL,
    day        bigint NOT NULL,
    fold_after bigint NOT NULL
  );
`;

/** Hours are hours since 1970, other times ms since 1970. */
const tables = `
  CREATE SCHEMA warren;
  CREATE TABLE warren.ledger (version int NOT NULL);
  INSERT INTO warren.ledger VALUES (${schemaVersion});
  -- One per instance, per run of a gateway with one tenant, and per gateway (core/account.ts), until it is folded
  -- (core/fold.ts). Most are written often: room is left on each page for it.
  CREATE TABLE warren.accounts (
    account ${key} PRIMARY KEY,
    tenant  ${key},
    started boolean NOT NULL,
    ${meterDefinitions},
    seen       bigint NOT NULL,
    first_hour bigint NOT NULL,
    last_hour  bigint NOT NULL,
    from_hour  bigint NOT NULL
  ) WITH (fillfactor = 70);
  CREATE INDEX accounts_by_from_hour ON warren.accounts (from_hour);
  -- One per hour in which an instance was seen, even if it used nothing; and of old hours one per tenant, with the number of
  -- folded instances that were first seen then.
  CREATE TABLE warren.postings (
    hour    bigint NOT NULL,
    tenant  ${key},
    account ${key},
    starts  bigint NOT NULL,
    ${meterDefinitions},
    instances bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, hour, account)
  ) WITH (fillfactor = 70);
  CREATE INDEX postings_by_hour ON warren.postings (hour);
  -- The last record counted of each journal; its id tells whether it is still the same journal.
  CREATE TABLE warren.positions (
    source    ${key} PRIMARY KEY,
    seq       bigint NOT NULL,
    record_id text NOT NULL
  );
  -- Records that were counted, by their producer's run (core/seen.ts). Bounded, those heard of least lately go first.
  CREATE TABLE warren.runs (
    run     ${key} PRIMARY KEY,
    ranges  text NOT NULL,
    missing bigint NOT NULL,
    last_at bigint NOT NULL
  );
  CREATE INDEX runs_by_last_at ON warren.runs (last_at, run);
  -- Bounded, the oldest go first; the counts stay.
  CREATE TABLE warren.quarantine (
    n         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_id ${key} UNIQUE,
    kind      text NOT NULL,
    reason    text NOT NULL,
    source    text NOT NULL,
    seq       bigint NOT NULL,
    stored_at bigint NOT NULL,
    subject   text NOT NULL,
    headers   text NOT NULL,
    data      bytea NOT NULL
  );
  CREATE TABLE warren.quarantine_counts (kind ${key} PRIMARY KEY, n bigint NOT NULL);
  -- Budget alerts that the journal has, by the beginning of their month.
  CREATE TABLE warren.alerts (
    month   bigint NOT NULL,
    tenant  ${key},
    percent int NOT NULL,
    PRIMARY KEY (month, tenant, percent)
  );
  ${clockTable}
`;

/** Meters as they were before there were volumes: a ledger on its way from the first version has no more. */
const metersOfSecond = [
  "cpu_us",
  "memory_byte_seconds",
  "wall_ms",
  "frozen_ms",
  "thaws",
  "requests",
  "bytes_out",
];

/** Fills in what accounts did not have before they were folded. It looks through all postings. */
const completing = (columns: readonly string[]): readonly string[] => [
  `UPDATE warren.accounts a SET first_hour = found.first, last_hour = found.last, from_hour = found.first
     FROM (SELECT account, min(hour) AS first, max(hour) AS last FROM warren.postings GROUP BY account) AS found
     WHERE a.account = found.account AND a.first_hour = ${unknownHour}`,
  `INSERT INTO warren.accounts (account, tenant, started, ${columns.join(", ")}, seen, first_hour, last_hour, from_hour)
     SELECT split_part(account, '${trafficMark}', 1) || '${trafficMark}', '', false, ${columns.map(() => "0").join(", ")},
       max(seen), min(first_hour), max(last_hour), min(from_hour)
     FROM warren.accounts WHERE strpos(account, '${trafficMark}') > 0 GROUP BY 1
     ON CONFLICT DO NOTHING`,
];

/** What brings a ledger of each version to the next one. */
const migrations: Readonly<Record<number, readonly string[]>> = {
  // What is old is folded.
  1: [
    `ALTER TABLE warren.accounts ADD COLUMN seen bigint NOT NULL DEFAULT 0,
       ${["first", "last", "from"].map((which) => `ADD COLUMN ${which}_hour bigint NOT NULL DEFAULT ${unknownHour}`).join(", ")}`,
    "ALTER TABLE warren.postings ADD COLUMN instances bigint NOT NULL DEFAULT 0",
    ...completing(metersOfSecond),
    "CREATE INDEX accounts_by_from_hour ON warren.accounts (from_hour)",
    clockTable,
  ],
  // Volumes are counted.
  2: ["accounts", "postings"].map(
    (table) =>
      `ALTER TABLE warren.${table} ADD COLUMN volume_byte_seconds numeric NOT NULL DEFAULT 0 CHECK (volume_byte_seconds >= 0)`,
  ),
};

/** Where a restore has brought accounts of an earlier version. The caller holds the transaction. */
export async function completeAccounts(sql: SQL): Promise<void> {
  const [{ incomplete }] = await sql`
    SELECT EXISTS (SELECT FROM warren.accounts WHERE from_hour = ${unknownHour}) AS incomplete`;
  if (incomplete) await runAll(sql, completing(meterNames.map((name) => meterColumn[name])));
}

/** Each may look through all that there is. */
async function runAll(sql: SQL, statements: readonly string[]): Promise<void> {
  await sql.unsafe("SET LOCAL statement_timeout = 0");
  for (const statement of statements) await sql.unsafe(statement);
}

/** Whether all is there, of this version. @throws StoreMismatchError when it is of a newer version, or no ledger */
export const isCurrent = async (sql: SQL, shown: string): Promise<boolean> =>
  (await versionOf(sql, shown)) === schemaVersion;

/**
 * Makes what is not there, and brings what is of an earlier version to this one. The caller holds the lock.
 * @param shown the database's name for messages, without credentials
 * @throws StoreMismatchError when it is of a newer version, or no ledger; it is left as it is
 */
export async function prepareSchema(sql: SQL, shown: string): Promise<void> {
  const version = await versionOf(sql, shown);
  await sql.begin(async (transaction) => {
    if (version === undefined) return await transaction.unsafe(tables).simple();
    for (let from = version; from < schemaVersion; from++) await runAll(transaction, migrations[from]!);
    return await transaction`UPDATE warren.ledger SET version = ${schemaVersion}`;
  });
}

/** @throws StoreMismatchError when there is none of exactly this version: for who only reads */
export async function checkSchema(sql: SQL, shown: string): Promise<void> {
  const version = await versionOf(sql, shown);
  if (version === undefined) throw new StoreMismatchError(`there is no ledger in ${shown}`);
  if (version < schemaVersion) {
    throw new StoreMismatchError(
      `${shown} has the older schema version ${version}: run metering on it once, which brings it to this one`,
    );
  }
}

/**
 * @returns nothing where there is no ledger
 * @throws StoreMismatchError when it is of a newer version, or no ledger
 */
async function versionOf(sql: SQL, shown: string): Promise<number | undefined> {
  const [found] = await sql`
    SELECT to_regnamespace('warren') IS NOT NULL AS schema, to_regclass('warren.ledger') IS NOT NULL AS ledger`;
  if (!found.schema) return undefined;
  if (!found.ledger) {
    throw new StoreMismatchError(
      `${shown} has a schema "warren" that is not a Warren ledger: it is left as it is`,
    );
  }
  const [{ version }] = await sql`SELECT version FROM warren.ledger`;
  if (version > schemaVersion) {
    throw new StoreMismatchError(
      `${shown} has schema version ${version}, this program knows up to ${schemaVersion}: it is left as it is; ` +
        "run the newer Warren that wrote it",
    );
  }
  return version;
}
