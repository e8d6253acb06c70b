/** MeteringService.Export: rows of any number, in pages of the ledger and messages of a bounded size. */
import type { HandlerContext } from "@connectrpc/connect";
import { Code, rpcError } from "@warren/common/rpc/errors";
import type { Clock } from "@warren/common/time";
import { ExportFormat, type ExportRequest, UsageWindow } from "@warren/proto/metering";
import { answered } from "../answer.ts";
import { askedTenant, askedWindow, cuts } from "../asked.ts";
import { boundsOf, type Cut, type Window } from "../core/window.ts";
import type { Ledger, UsageRow } from "../ledger/ledger.ts";
import { usagePages } from "../ledger/pages.ts";
import { chunksOf } from "./chunks.ts";
import { csv } from "./csv.ts";
import { jsonLines } from "./json-lines.ts";
import { openMeter } from "./openmeter.ts";
import type { ExportRow, ExportSource, RowFormat } from "./row.ts";
import { isWhole, settledPart } from "./settled.ts";

const formats: Readonly<Partial<Record<ExportFormat, (source: ExportSource) => RowFormat>>> = {
  [ExportFormat.CSV]: () => csv,
  [ExportFormat.JSON]: () => jsonLines,
  [ExportFormat.OPENMETER]: openMeter,
};

export interface ExportOptions {
  readonly ledger: Ledger;
  /** Name of the cell. */
  readonly cell: string;
  readonly clock: Clock;
}

/** @throws ConnectError INVALID_ARGUMENT naming the field; OUT_OF_RANGE when a sum does not fit the contract (rows only) */
export async function* exportUsage(
  { ledger, cell, clock }: ExportOptions,
  request: ExportRequest,
  { signal }: Pick<HandlerContext, "signal">,
) {
  const cut = request.window === UsageWindow.UNSPECIFIED ? "hour" : cuts[request.window];
  const { tenant, window } = asked(request, cut, clock.now());
  const pages = usagePages(ledger, { tenant, window, cut, signal });
  const format = formats[request.format]?.({ cell, cut });
  if (!format) {
    for await (const rows of pages) {
      if (rows.length > 0) yield { rows: rows.map((row) => answered(row, cut, window)) };
    }
    return;
  }
  for await (const chunk of chunksOf(linesOf(pages, format, cut, window))) yield { chunk };
}

function asked(
  request: ExportRequest,
  cut: Cut,
  now: number,
): { tenant: string | undefined; window: Window } {
  const tenant = askedTenant(request.tenant);
  const window = askedWindow(request);
  if (request.format !== ExportFormat.OPENMETER) {
    return { tenant, window: request.settledOnly ? settledPart(window, cut, now) : window };
  }
  // Why these two: openmeter.ts.
  if (cut === "total") {
    throw rpcError(Code.InvalidArgument, "window: an event needs a time; export hours, days or months");
  }
  if (!isWhole(window, cut)) {
    throw rpcError(
      Code.InvalidArgument,
      `start, end: must lie where a ${cut} begins (UTC): an event is sent once and stands for the whole ${cut}`,
    );
  }
  return { tenant, window: settledPart(window, cut, now) };
}

async function* linesOf(
  pages: AsyncIterable<UsageRow[]>,
  format: RowFormat,
  cut: Cut,
  window: Window,
): AsyncGenerator<string> {
  if (format.head !== "") yield format.head;
  for await (const rows of pages) {
    for (const row of rows) yield format.row(exportRow(row, cut, window));
  }
}

function exportRow(
  { tenant, bucket, used, starts, instances }: UsageRow,
  cut: Cut,
  window: Window,
): ExportRow {
  const bounds = cut === "total" ? undefined : boundsOf(cut, bucket, window);
  return { tenant, ...bounds, use: { ...used, starts }, instances };
}
