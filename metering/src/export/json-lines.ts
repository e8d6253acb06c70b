/** One JSON object per line, as the contract's TenantUsage reads in JSON: counters as text, since they are 64 bits wide. */
import { activeMs } from "../billing/catalog.ts";
import type { ExportRow, RowFormat } from "./row.ts";

export const jsonLines: RowFormat = {
  head: "",
  row({ tenant, start, end, use, instances }: ExportRow) {
    const counters = { ...use, activeMs: activeMs(use), instances };
    return `${JSON.stringify({
      tenant,
      start: start === undefined ? undefined : new Date(start).toISOString(),
      end: end === undefined ? undefined : new Date(end).toISOString(),
      ...Object.fromEntries(Object.entries(counters).map(([name, value]) => [name, `${value}`])),
    })}\n`;
  },
};
