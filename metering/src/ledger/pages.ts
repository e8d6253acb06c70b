/** Reads usage of any size in pages of a bounded one, without keeping anything that writes waiting. */
import type { Cut, Window } from "../core/window.ts";
import type { Ledger, UsageRow } from "./ledger.ts";

export interface PagesQuery {
  /** Only this tenant's; absent: all. */
  readonly tenant?: string;
  /** Only tenants whose keys come after this one. */
  readonly afterTenant?: string;
  readonly window: Window;
  readonly cut: Cut;
  /** Ends the reading between two pages. */
  readonly signal?: AbortSignal;
}

/** Rows of one page. */
const pageRows = 2_000;
/** Tenants that are summed at a time: bounds how long the ledger is busy for a page. */
const pageTenants = 50;

/** By tenant, then window. Pages may be empty; what is counted while it reads may show in later ones. */
export async function* usagePages(
  ledger: Ledger,
  { tenant, afterTenant = "", window, cut, signal }: PagesQuery,
): AsyncGenerator<UsageRow[]> {
  for (let before = afterTenant; !signal?.aborted; ) {
    const tenants = tenant === undefined ? await ledger.tenants(before, pageTenants) : [tenant];
    const last = tenants.at(-1);
    if (last === undefined) return;
    let after: Pick<UsageRow, "tenant" | "bucket"> | undefined =
      tenant === undefined ? { tenant: before, bucket: Number.MAX_SAFE_INTEGER } : undefined;
    while (!signal?.aborted) {
      const rows = await ledger.usage({ tenant, untilTenant: last, window, cut, limit: pageRows, after });
      yield rows;
      // The file answers at once: others must have their turn.
      await new Promise((turn) => setImmediate(turn));
      if (rows.length < pageRows) break;
      after = rows.at(-1)!;
    }
    if (tenant !== undefined) return;
    before = last;
  }
}
