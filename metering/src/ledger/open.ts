/** Which ledger: a file on this host, or a PostgreSQL. */
import type { Ledger } from "./ledger.ts";
import { PostgresLedger } from "./postgres/ledger.ts";
import { SqliteLedger } from "./sqlite/ledger.ts";

export interface LedgerLocation {
  /** Where the file lies; made (0700) if missing, and locked. */
  readonly stateDirectory: string;
  /** postgres://user:password@host:port/database: there, and not in the file. */
  readonly ledgerUrl?: string;
}

/**
 * @throws ConfigError when the URL is none of a PostgreSQL
 * @throws StoreLockedError, StoreMismatchError when the ledger is in use, of a newer version, or none
 * @throws StoreUnavailableError when there is no PostgreSQL, or it refuses us
 */
export async function openLedger({ stateDirectory, ledgerUrl }: LedgerLocation): Promise<Ledger> {
  return ledgerUrl === undefined ? SqliteLedger.open(stateDirectory) : PostgresLedger.open(ledgerUrl);
}
