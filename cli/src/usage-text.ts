/** What `warren usage` prints: a table that ends in a sum, with a plot of its first meter where somebody looks. */
import { fromTimestamp } from "@warren/common/time";
import type { TenantUsage } from "@warren/proto/metering";
import pc from "./colors.ts";
import type { By } from "./metered.ts";
import { alignedRight, tableText } from "./output.ts";
import { bar, fold, highest, plotBeside, sparkline } from "./plot.ts";
import type { UsageColumn } from "./usage-columns.ts";

export interface UsageShown {
  /** At least one; the first is plotted, and sorted by where tenants are listed. */
  readonly columns: readonly UsageColumn[];
  /** Columns of the terminal, to plot in what the table leaves of them; nothing to plot nothing. */
  readonly width: number | undefined;
}

/** One row per window of one tenant. */
export function windowsText(rows: readonly TenantUsage[], by: By, { columns, width }: UsageShown): string {
  const plotted = columns[0]!;
  const lines = rows.map((row) => [windowName(row, by), ...columns.map(({ of, text }) => text(of(row)))]);
  const sums = ["total", ...columns.map(({ of, text }) => text(sumOf(rows, of)))];
  const values = rows.map(plotted.of);
  const most = highest(values);
  const plots = plotted.title.toLowerCase();
  return table(["FROM", ...columns.map(({ title }) => title)], [...lines, sums], {
    title: plots,
    width,
    plot: (room, n) => (n < values.length ? bar(values[n]!, most, room) : ""),
  });
}

/** One row per tenant, the highest use first; of each, its windows as a line where there are several. */
export function tenantsText(
  rows: readonly TenantUsage[],
  by: By,
  { columns, width, most }: UsageShown & { readonly most: number },
): string {
  const plotted = columns[0]!;
  const tenants = [...Map.groupBy(rows, ({ tenant }) => tenant)]
    .map(([tenant, own]) => ({ tenant, own, total: sumOf(own, plotted.of) }))
    .sort((a, b) => (a.total === b.total ? (a.tenant < b.tenant ? -1 : 1) : a.total < b.total ? 1 : -1));
  const shown = tenants.slice(0, most);
  const lines = shown.map(({ tenant, own }) => [
    tenant,
    ...columns.map(({ of, text }) => text(sumOf(own, of))),
  ]);
  const hidden = tenants.length - shown.length;
  const label = `${tenants.length} ${tenants.length === 1 ? "tenant" : "tenants"}`;
  const sums = [label, ...columns.map(({ of, text }) => text(sumOf(rows, of)))];
  const plot = by === "total" ? barsOf(shown.map(({ total }) => total)) : linesOf(shown, rows, plotted);
  const text = table(["TENANT", ...columns.map(({ title }) => title)], [...lines, sums], {
    title: by === "total" ? plotted.title.toLowerCase() : `${plotted.title.toLowerCase()} by ${by}`,
    width,
    plot,
  });
  return hidden > 0 ? `${text}${pc.dim(`… ${hidden} tenants with less are not shown (--top)`)}\n` : text;
}

type Plot = (room: number, n: number) => string;

function barsOf(values: readonly bigint[]): Plot {
  const most = highest(values);
  return (room, n) => (n < values.length ? bar(values[n]!, most, room) : "");
}

/** A sparkline for each tenant, all over the same windows and to its own scale; the last is the sum's. */
function linesOf(
  tenants: readonly { readonly own: readonly TenantUsage[] }[],
  rows: readonly TenantUsage[],
  { of }: UsageColumn,
): Plot {
  const starts = [...new Set(rows.map(startOf))].sort((a, b) => a - b);
  const place = new Map(starts.map((start, n) => [start, n]));
  const series = (own: readonly TenantUsage[]): bigint[] => {
    const values = Array<bigint>(starts.length).fill(0n);
    for (const row of own) {
      const at = place.get(startOf(row))!;
      values[at] = values[at]! + of(row);
    }
    return values;
  };
  return (room, n) => {
    const values = fold(series(tenants[n]?.own ?? rows), room);
    return sparkline(values, highest(values));
  };
}

/** The table, and beside it a plot in the room that is left. */
function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { title, width, plot }: { title: string; width: number | undefined; plot: Plot },
): string {
  const [first, ...others] = alignedRight([head, ...rows], (column) => column > 0);
  return plotBeside(tableText(first!, others), width, (room, n) =>
    n === 0 ? title.slice(0, room) : plot(room, n - 1),
  );
}

const startOf = ({ start }: TenantUsage): number => fromTimestamp(start, 0);

/** "2026-11-21 10:00", "2026-11-21", "2026-11": UTC, as all windows are. */
function windowName(row: TenantUsage, by: By): string {
  if (by === "total") return "all";
  const text = new Date(startOf(row)).toISOString();
  return by === "hour" ? text.slice(0, 16).replace("T", " ") : text.slice(0, by === "day" ? 10 : 7);
}

const sumOf = (rows: readonly TenantUsage[], of: (row: TenantUsage) => bigint): bigint =>
  rows.reduce((sum, row) => sum + of(row), 0n);
