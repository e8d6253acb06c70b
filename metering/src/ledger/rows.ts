/** All that a ledger holds, as rows that any kind of ledger gives and takes. */
import type { Account } from "../core/account.ts";
import type { LedgerClock } from "../core/clock.ts";
import type { HourRow } from "../core/fold.ts";

export interface ClockRow extends LedgerClock {
  readonly table: "clock";
}

export interface AccountRow extends Account {
  readonly table: "account";
  readonly account: string;
}

/** Hours of an account that was written before they were known: a restore looks for them in the postings. */
export const unknownHour = -1;

export interface PostingRow extends HourRow {
  readonly table: "posting";
}

export interface RunRow {
  readonly table: "run";
  readonly run: string;
  readonly ranges: string;
  readonly missing: number;
  readonly lastAt: number;
}

export interface PositionRow {
  readonly table: "position";
  readonly source: string;
  readonly seq: bigint;
  readonly recordId: string;
}

export interface QuarantinedRow {
  readonly table: "quarantined";
  readonly recordId: string;
  readonly kind: string;
  readonly reason: string;
  readonly source: string;
  readonly seq: bigint;
  /** ms since 1970 */
  readonly storedAt: number;
  readonly subject: string;
  /** As JSON. */
  readonly headers: string;
  readonly data: Uint8Array;
}

export interface QuarantineCountRow {
  readonly table: "quarantine-count";
  readonly kind: string;
  readonly n: number;
}

/** A budget alert that the journal has. */
export interface AlertRow {
  readonly table: "alert";
  /** Beginning of its month, ms since 1970. */
  readonly month: number;
  readonly tenant: string;
  readonly percent: number;
}

export type LedgerRow =
  | PositionRow
  | ClockRow
  | AccountRow
  | PostingRow
  | RunRow
  | AlertRow
  | QuarantineCountRow
  | QuarantinedRow;
