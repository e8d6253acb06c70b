/** Which ledger: a file on this host, or a PostgreSQL. */
import { ConfigError } from "@warren/common/config";
import type { Ledger } from "./ledger.ts";
import { PostgresLedger } from "./postgres/ledger.ts";
import { postgresRows } from "./postgres/rows.ts";
import type { LedgerRow } from "./rows.ts";
import { SqliteLedger } from "./sqlite/ledger.ts";
import { sqliteRows } from "./sqlite/rows.ts";

/** One of the two. */
export interface LedgerLocation {
  /** Where the file lies; made (0700) if missing, and locked. Not needed for a PostgreSQL. */
  readonly stateDirectory?: string;
  /** postgres://user:password@host:port/database: there, and not in the file. */
  readonly ledgerUrl?: string;
}

/**
 * @throws ConfigError when neither is named, or the URL is none of a PostgreSQL
 * @throws StoreLockedError, StoreMismatchError when the ledger is in use, of a newer version, or none
 * @throws StoreUnavailableError when there is no PostgreSQL, or it refuses us
 */
export async function openLedger({ stateDirectory, ledgerUrl }: LedgerLocation): Promise<Ledger> {
  if (ledgerUrl !== undefined) return PostgresLedger.open(ledgerUrl);
  if (stateDirectory !== undefined) return SqliteLedger.open(stateDirectory);
  throw new ConfigError(
    "metering has no ledger: name a state directory (--state) or a PostgreSQL (--ledger)",
  );
}

/**
 * All that a ledger holds at this moment, in an order that depends on its content only; while another process counts.
 * @throws ConfigError, StoreMismatchError, StoreUnavailableError at the first row
 */
export function readLedger({ stateDirectory, ledgerUrl }: LedgerLocation): AsyncGenerator<LedgerRow, void> {
  if (ledgerUrl !== undefined) return postgresRows(ledgerUrl);
  if (stateDirectory !== undefined) return sqliteRows(stateDirectory);
  throw noLedger();
}

const noLedger = () =>
  new ConfigError("metering has no ledger: name a state directory (--state) or a PostgreSQL (--ledger)");
