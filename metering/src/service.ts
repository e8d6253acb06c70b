/** MeteringService: GetUsage here, Export and PreviewInvoices in files of their own. */
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, rpcError } from "@warren/common/rpc/errors";
import type { GetUsageRequest, MeteringService } from "@warren/proto/metering";
import { answered } from "./answer.ts";
import { askedTenant, askedWindow, cuts } from "./asked.ts";
import { asRpcError } from "./away.ts";
import { type InvoiceOptions, previewInvoices } from "./billing/rpc.ts";
import { type ExportOptions, exportUsage } from "./export/rpc.ts";
import type { Ledger } from "./ledger/ledger.ts";

/** Rows of one answer. */
export const maxRows = 10_000;

export function meteringService(
  options: ExportOptions & InvoiceOptions,
): ServiceImpl<typeof MeteringService> {
  const { ledger, source } = options;
  return {
    getUsage: (request) => told(getUsage(ledger, source, request)),
    async *export(request, context) {
      try {
        yield* exportUsage(options, request, context);
      } catch (error) {
        throw asRpcError(error);
      }
    },
    previewInvoices: (request) => told(previewInvoices(options, request)),
  };
}

function told<T>(answer: Promise<T>): Promise<T> {
  return answer.catch((error: unknown) => {
    throw asRpcError(error);
  });
}

async function getUsage(ledger: Ledger, source: string, request: GetUsageRequest) {
  const tenant = askedTenant(request.tenant);
  const window = askedWindow(request);
  const cut = cuts[request.window];
  // Read before the rows: these hold all up to there, and perhaps more.
  const position = await ledger.position(source);
  // One row more tells that there are more.
  const rows = await ledger.usage({ tenant, window, cut, limit: maxRows + 1 });
  if (rows.length > maxRows) {
    throw rpcError(
      Code.ResourceExhausted,
      `more than ${maxRows} rows: ask for one tenant, for a shorter time (start, end), or for days or months instead of hours (window), or take Export`,
    );
  }
  return { rows: rows.map((row) => answered(row, cut, window)), journalSeq: position?.seq ?? 0n };
}
