/** Which ledger: a file on this host, or a PostgreSQL. */
import { ConfigError } from "@warren/common/config";
import { leastFoldAfter } from "../core/clock.ts";
import type { Ledger } from "./ledger.ts";
import { PostgresLedger } from "./postgres/ledger.ts";
import { postgresRows } from "./postgres/rows.ts";
import type { LedgerRow } from "./rows.ts";
import { SqliteLedger } from "./sqlite/ledger.ts";
import { sqliteRows } from "./sqlite/rows.ts";

/** One of the first two. */
export interface LedgerLocation {
  /** Where the file lies; made (0700) if missing, and locked. Not needed for a PostgreSQL. */
  readonly stateDirectory?: string;
  /** postgres://user:password@host:port/database: there, and not in the file. */
  readonly ledgerUrl?: string;
}

export interface LedgerOptions {
  /** Days of the ledger's own time (core/clock.ts) without a word of an instance after which it is folded; default 40. */
  readonly foldAfter?: number;
}

/**
 * @throws ConfigError when neither is named, the URL is none of a PostgreSQL, or too much would be folded
 * @throws StoreLockedError, StoreMismatchError when the ledger is in use, of a newer version, or none
 * @throws StoreUnavailableError when there is no PostgreSQL, or it refuses us
 */
export async function openLedger({
  stateDirectory,
  ledgerUrl,
  foldAfter,
}: LedgerLocation & LedgerOptions): Promise<Ledger> {
  if (foldAfter !== undefined && !(foldAfter >= leastFoldAfter)) {
    throw new ConfigError(
      `--fold-after is at least ${leastFoldAfter} days, and twice as long as the journal keeps its events: ` +
        "what may still be counted again must not be folded",
    );
  }
  if (ledgerUrl !== undefined) return PostgresLedger.open(ledgerUrl, foldAfter);
  if (stateDirectory !== undefined) return SqliteLedger.open(stateDirectory, foldAfter);
  throw noLedger();
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
