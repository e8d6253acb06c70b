/** The ledger's tables: in a schema of their own, one ledger per database. */
import { StoreMismatchError } from "@warren/store";
import type { SQL } from "bun";
import { meterNames } from "../../core/meters.ts";
import { meterColumn } from "../columns.ts";

export const schemaVersion = 1;

/** A u64, and sums of such. */
const meterDefinitions = meterNames
  .map((name) => `${meterColumn[name]} numeric NOT NULL CHECK (${meterColumn[name]} >= 0)`)
  .join(", ");

/** Compared by bytes, as everywhere else in Warren, whatever the database's language is. */
const key = 'text COLLATE "C" NOT NULL';

/** Hours are hours since 1970, other times ms since 1970. */
const tables = `
  CREATE SCHEMA warren;
  CREATE TABLE warren.ledger (version int NOT NULL);
  INSERT INTO warren.ledger VALUES (${schemaVersion});
  -- One per instance, and per run of a gateway with one tenant, for ever (core/account.ts). Most are written often: room
  -- is left on each page for it.
  CREATE TABLE warren.accounts (
    account ${key} PRIMARY KEY,
    tenant  ${key},
    started boolean NOT NULL,
    ${meterDefinitions}
  ) WITH (fillfactor = 70);
  -- One per hour in which an instance was seen, even if it used nothing.
  CREATE TABLE warren.postings (
    hour    bigint NOT NULL,
    tenant  ${key},
    account ${key},
    starts  bigint NOT NULL,
    ${meterDefinitions},
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
`;

/**
 * Makes what is not there. The caller holds the lock.
 * @param shown the database's name for messages, without credentials
 * @throws StoreMismatchError when it is of a newer version, or no ledger; it is left as it is
 */
export async function prepareSchema(sql: SQL, shown: string): Promise<void> {
  if (await checkSchema(sql, shown, { mayBeMissing: true })) return;
  await sql.begin((transaction) => transaction.unsafe(tables).simple());
}

/**
 * @returns whether there is a ledger
 * @throws StoreMismatchError when it is of a newer version, or no ledger
 */
export async function checkSchema(sql: SQL, shown: string, { mayBeMissing = false } = {}): Promise<boolean> {
  const [found] = await sql`
    SELECT to_regnamespace('warren') IS NOT NULL AS schema, to_regclass('warren.ledger') IS NOT NULL AS ledger`;
  if (!found.schema) {
    if (mayBeMissing) return false;
    throw new StoreMismatchError(`there is no ledger in ${shown}`);
  }
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
  return true;
}
