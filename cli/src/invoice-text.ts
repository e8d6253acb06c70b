/** What `warren invoice` prints. */
import { fromTimestamp } from "@warren/common/time";
import { UsageMeter } from "@warren/proto/common";
import type { Invoice, InvoiceLine } from "@warren/proto/metering";
import pc from "./colors.ts";
import { alignedRight, tableText } from "./output.ts";
import { bar, plotBeside } from "./plot.ts";
import { moneyText } from "./units.ts";

const unitOf: Readonly<Partial<Record<UsageMeter, string>>> = {
  [UsageMeter.CPU_SECONDS]: "s",
  [UsageMeter.MEMORY_GIB_SECONDS]: "GiB·s",
  [UsageMeter.ACTIVE_SECONDS]: "s",
  [UsageMeter.FROZEN_SECONDS]: "s",
  [UsageMeter.BYTES_OUT]: "B",
  [UsageMeter.VOLUME_GIB_HOURS]: "GiB·h",
};

/** One tenant's, line by line. */
export function invoiceText(invoice: Invoice): string {
  const { tenant, plan, currency, lines, subtotalMicros, minimumMicros, totalMicros, settled } = invoice;
  const month = new Date(fromTimestamp(invoice.start, 0)).toISOString().slice(0, 7);
  const state = settled ? "settled" : "so far: it may still rise";
  const head = `${pc.bold(tenant)}, ${month}, ${plan ? `plan ${plan}` : "no plan"}  ${pc.dim(state)}\n`;
  if (!plan)
    return `${head}\nIt has used something, and the plans file gives it no plan: it is billed nothing.\n`;
  const sums = [
    ...(minimumMicros > 0n
      ? [
          ["", "", "", "subtotal", moneyText(subtotalMicros, currency)],
          ["", "", "", "to the minimum", moneyText(minimumMicros, currency)],
        ]
      : []),
    ["", "", "", "total", moneyText(totalMicros, currency)],
  ];
  const [titles, ...rows] = alignedRight(
    [["", "USED", "FREE", "MODEL", "AMOUNT"], ...lines.map((line) => lineRow(line, currency)), ...sums],
    (column) => column !== 0 && column !== 3,
  );
  return `${head}\n${tableText(titles!, rows)}`;
}

function lineRow(
  { name, meter, quantity, free, model, amountMicros }: InvoiceLine,
  currency: string,
): string[] {
  const unit = unitOf[meter];
  const text = (amount: string) => (unit ? `${grouped(amount)} ${unit}` : grouped(amount));
  return [name, text(quantity), free === "0" ? "-" : text(free), model, moneyText(amountMicros, currency)];
}

/** "1234567.25" → "1 234 567.25", and three digits after the point are enough to read. */
function grouped(decimal: string): string {
  const [whole, fraction = ""] = decimal.split(".");
  const groups = whole!.replace(/\B(?=(\d{3})+$)/g, " ");
  const shown = fraction.slice(0, 3).replace(/0+$/, "");
  return shown ? `${groups}.${shown}` : groups;
}

/**
 * One row per tenant, the highest first, and what all of them come to.
 * @param width columns of the terminal, to plot in what the table leaves; nothing to plot nothing
 */
export function invoicesText(invoices: readonly Invoice[], width: number | undefined): string {
  const sorted = invoices.toSorted((a, b) =>
    a.totalMicros === b.totalMicros ? (a.tenant < b.tenant ? -1 : 1) : a.totalMicros < b.totalMicros ? 1 : -1,
  );
  const rows = sorted.map(({ tenant, plan, currency, subtotalMicros, minimumMicros, totalMicros }) =>
    plan
      ? [
          tenant,
          plan,
          moneyText(subtotalMicros, currency),
          minimumMicros > 0n ? moneyText(minimumMicros, currency) : "-",
          moneyText(totalMicros, currency),
        ]
      : [tenant, "no plan", "-", "-", "-"],
  );
  const total = sorted.reduce((sum, { totalMicros }) => sum + totalMicros, 0n);
  const currency = sorted.find((invoice) => invoice.currency)?.currency ?? "";
  const count = `${sorted.length} ${sorted.length === 1 ? "tenant" : "tenants"}`;
  const [head, ...table] = alignedRight(
    [
      ["TENANT", "PLAN", "USED", "TO MINIMUM", "TOTAL"],
      ...rows,
      [count, "", "", "", moneyText(total, currency)],
    ],
    (column) => column >= 2,
  );
  const most = sorted[0]?.totalMicros ?? 0n;
  return plotBeside(tableText(head!, table), width, (room, n) =>
    n > 0 && n <= sorted.length ? bar(sorted[n - 1]!.totalMicros, most, room) : "",
  );
}
