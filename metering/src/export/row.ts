/** What is exported: a tenant's use in one window. */
import type { Use } from "../billing/catalog.ts";
import type { Cut } from "../core/window.ts";

export interface ExportRow {
  readonly tenant: string;
  /** ms since 1970; absent in a total. */
  readonly start?: number;
  /** Exclusive. */
  readonly end?: number;
  readonly use: Use;
  readonly instances: bigint;
}

/** Writes rows as text. */
export interface RowFormat {
  /** Before the first row; may be empty. */
  readonly head: string;
  /** With the end of its line. */
  readonly row: (row: ExportRow) => string;
}

/** Whose ledger it is, and how its rows are cut: what a row does not say of itself. */
export interface ExportSource {
  /** Name of the cell. */
  readonly cell: string;
  readonly cut: Cut;
}
