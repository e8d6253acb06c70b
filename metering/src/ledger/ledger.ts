/**
 * The ledger: the pure core's results, committed batch by batch together with the place in the journal. Behind this
 * interface stand a file (sqlite/) and a PostgreSQL (postgres/), held to one conformance suite.
 */
import { type StoredRecord, StoreMismatchError } from "@warren/store";
import type { Counted } from "../core/count.ts";
import type { Meters } from "../core/meters.ts";
import type { Cut, Window } from "../core/window.ts";
import type { LedgerRow } from "./rows.ts";

/** The last record counted of a journal. */
export interface Position {
  readonly seq: bigint;
  readonly recordId: string;
}

export interface UsageQuery {
  /** Only this tenant's; absent: all. */
  readonly tenant?: string;
  /** Only tenants up to and with this one. */
  readonly untilTenant?: string;
  readonly window: Window;
  readonly cut: Cut;
  /** Most rows answered. */
  readonly limit: number;
  /** Only rows behind this one: for reading more than `limit` in pages. What is counted in between may show. */
  readonly after?: Pick<UsageRow, "tenant" | "bucket">;
}

export interface UsageRow {
  readonly tenant: string;
  /** Number of the hour, day or calendar month since 1970; 0 in a total. */
  readonly bucket: number;
  /** Sums: each may be above 2^64. */
  readonly used: Meters;
  /** Cold starts: instances that became ready. */
  readonly starts: bigint;
  /** Instances seen; in hours that are folded, those that were seen first then. */
  readonly instances: bigint;
}

/** Which budget alert of a month. */
export interface AlertMark {
  readonly tenant: string;
  readonly percent: number;
}

export interface Counting extends Counted {
  /** Of the odd records, those that are new in quarantine. */
  readonly newlyQuarantined: number;
}

/** What one step of folding has done. */
export interface Folded {
  /** Accounts that went. */
  readonly accounts: number;
  /** Postings that went. */
  readonly postings: number;
  /** Whether there may be more to do. */
  readonly more: boolean;
}

export interface Ledger extends AsyncDisposable {
  /**
   * Counts the records and remembers the last one, in one transaction: all of it is durable when this answers, or none of
   * it happened. One call at a time.
   * @param source names the journal that they come from
   * @throws when the database is full, broken or away; count the same records again later
   */
  count(source: string, records: readonly StoredRecord[]): Promise<Counting>;
  /**
   * Folds some of what is old (core/fold.ts), in one transaction of some milliseconds. Not while something is counted.
   * @throws as `count` does
   */
  fold(): Promise<Folded>;
  /** The last record counted of that journal. */
  position(source: string): Promise<Position | undefined>;
  /** By tenant, then bucket. */
  usage(query: UsageQuery): Promise<UsageRow[]>;
  /**
   * Keys of tenants that ever used anything, in the order of their bytes.
   * @param after only those behind this one; "" from the first
   */
  tenants(after: string, limit: number): Promise<string[]>;
  /**
   * Budget alerts that the journal has.
   * @param month its beginning, ms since 1970
   */
  alerts(month: number): Promise<AlertMark[]>;
  /** Remembers that the journal has them; those of months long past are forgotten. */
  markAlerts(month: number, marks: readonly AlertMark[]): Promise<void>;
  /** Records ever put in quarantine, by kind. */
  quarantineCounts(): Promise<ReadonlyMap<string, number>>;
  /** Records that are known to exist and have not been counted: later ones of the same producer have. */
  missing(): Promise<number>;
  /**
   * Writes all rows of another ledger into this one, in one transaction, while nothing is counted.
   * @throws StoreMismatchError when it is not empty; nothing was written
   * @throws what the rows throw; nothing was written
   */
  restore(rows: AsyncIterable<LedgerRow>): Promise<void>;
  close(): Promise<void>;
}

/** Where a ledger has something that a restore would mix with. */
export const isNotEmpty = (where: string): StoreMismatchError =>
  new StoreMismatchError(`the ledger ${where} is not empty: restore into an empty one`);
