/** MeteringService.PreviewInvoices: the ledger's month, priced by the plans. */
import { Code, rpcError } from "@warren/common/rpc/errors";
import { type Clock, fromTimestamp, toTimestamp } from "@warren/common/time";
import type { PreviewInvoicesRequest } from "@warren/proto/metering";
import { askedTenant } from "../asked.ts";
import { nothing } from "../core/meters.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { usagePages } from "../ledger/pages.ts";
import type { Use } from "./catalog.ts";
import { billOf } from "./invoice.ts";
import { hoursOf, isSettled, type Period, periodOf } from "./period.ts";
import { type Plans, planOf } from "./plan.ts";
import { quantityText } from "./quantity.ts";

export interface InvoiceOptions {
  readonly ledger: Ledger;
  /** The journal whose position is answered. */
  readonly source: string;
  /** Nothing where there are none. */
  readonly plans: () => Plans | undefined;
  readonly clock: Clock;
}

const defaultPage = 1_000;
/** Of all invoices of a page together, so that it fits a message. */
const mostLines = 16_000;

/** @throws ConnectError FAILED_PRECONDITION without plans, NOT_FOUND, INVALID_ARGUMENT, OUT_OF_RANGE */
export async function previewInvoices(options: InvoiceOptions, request: PreviewInvoicesRequest) {
  const { ledger, source, clock } = options;
  const plans = options.plans();
  if (!plans) {
    throw rpcError(
      Code.FailedPrecondition,
      "the metering process has no plans to price by: give it a file (--plans; docs/billing.md)",
    );
  }
  const tenant = askedTenant(request.tenant);
  const now = clock.now();
  const month = periodOf("month", fromTimestamp(request.month, now));
  if (!Number.isFinite(month.start)) throw rpcError(Code.InvalidArgument, "month: is no date");
  // Read before the usage: that holds all up to there, and perhaps more.
  const position = await ledger.position(source);
  const journalSeq = position?.seq ?? 0n;
  const invoice = (user: User) => invoiceOf(plans, user, month, now);
  if (tenant !== undefined) {
    const [row] = await ledger.usage({ tenant, window: hoursOf(month), cut: "total", limit: 1 });
    const use = row && { ...row.used, starts: row.starts };
    if (!use && !planOf(plans, tenant)) {
      throw rpcError(Code.NotFound, `tenant ${tenant} has used nothing in that month, and has no plan`);
    }
    return { invoices: [invoice({ tenant, use })], journalSeq, nextPageToken: "" };
  }
  const pageSize = request.pageSize || defaultPage;
  const invoices: ReturnType<typeof invoiceOf>[] = [];
  let lines = 0;
  for await (const user of users(ledger, plans, month, request.pageToken)) {
    if (invoices.length >= pageSize || lines >= mostLines) {
      return { invoices, journalSeq, nextPageToken: invoices.at(-1)!.tenant };
    }
    const made = invoice(user);
    invoices.push(made);
    lines += 1 + made.lines.length;
  }
  return { invoices, journalSeq, nextPageToken: "" };
}

interface User {
  readonly tenant: string;
  /** Nothing where it used nothing. */
  readonly use?: Use;
}

/** By key: those that used something in that month, and those that the plans name. */
async function* users(ledger: Ledger, plans: Plans, month: Period, after: string): AsyncGenerator<User> {
  const named = [...plans.exact.keys()].filter((key) => key > after).sort();
  let next = 0;
  for await (const rows of usagePages(ledger, { afterTenant: after, window: hoursOf(month), cut: "total" })) {
    for (const { tenant, used, starts } of rows) {
      while (next < named.length && named[next]! < tenant) yield { tenant: named[next++]! };
      if (named[next] === tenant) next++;
      yield { tenant, use: { ...used, starts } };
    }
  }
  while (next < named.length) yield { tenant: named[next++]! };
}

function invoiceOf(plans: Plans, { tenant, use }: User, month: Period, now: number) {
  const plan = planOf(plans, tenant);
  const period = { start: toTimestamp(month.start), end: toTimestamp(month.end) };
  const settled = isSettled(month, now);
  if (!plan) return { tenant, plan: "", currency: plans.currency, ...period, lines: [], settled };
  const { lines, subtotal, minimum, total } = billOf(
    plan,
    use ?? { ...nothing, starts: 0n },
    use !== undefined || plans.exact.has(tenant),
  );
  return {
    tenant,
    plan: plan.name,
    currency: plans.currency,
    ...period,
    lines: lines.map(({ kind, name, quantity, free, model, amount }) => ({
      meter: kind.meter,
      name,
      quantity: quantityText(kind, quantity),
      free: quantityText(kind, free),
      model,
      amountMicros: fitting(amount, tenant),
    })),
    subtotalMicros: fitting(subtotal, tenant),
    minimumMicros: minimum,
    totalMicros: fitting(total, tenant),
    settled,
  };
}

/** @throws ConnectError OUT_OF_RANGE when it does not fit the contract */
function fitting(micros: bigint, tenant: string): bigint {
  if (micros < 2n ** 63n) return micros;
  throw rpcError(
    Code.OutOfRange,
    `the invoice of ${tenant} comes to ${micros} micros: more than 64 bits hold`,
  );
}
