/** All that a ledger holds, as rows that any kind of ledger gives and takes. */
import type { Meters } from "../core/meters.ts";

export interface AccountRow {
  readonly table: "account";
  readonly account: string;
  readonly tenant: string;
  readonly started: boolean;
  readonly used: Meters;
}

export interface PostingRow {
  readonly table: "posting";
  readonly hour: number;
  readonly tenant: string;
  readonly account: string;
  readonly starts: number;
  readonly used: Meters;
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
  | AccountRow
  | PostingRow
  | RunRow
  | AlertRow
  | QuarantineCountRow
  | QuarantinedRow;
