/** MeteringService. `Export` is not there yet and answers UNIMPLEMENTED. */
import type { ServiceImpl } from "@connectrpc/connect";
import { isKey, keyRule } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp, toTimestamp } from "@warren/common/time";
import { type GetUsageRequest, type MeteringService, UsageWindow } from "@warren/proto/metering";
import { StoreUnavailableError } from "@warren/store";
import { meterNames } from "./core/meters.ts";
import { boundsOf, type Cut, type Window, windowOf } from "./core/window.ts";
import type { Ledger, UsageRow } from "./ledger/ledger.ts";

/** Rows of one answer. */
export const maxRows = 10_000;

const maxU64 = 2n ** 64n - 1n;

const cuts: Readonly<Record<UsageWindow, Cut>> = {
  [UsageWindow.UNSPECIFIED]: "total",
  [UsageWindow.TOTAL]: "total",
  [UsageWindow.HOUR]: "hour",
  [UsageWindow.DAY]: "day",
  [UsageWindow.MONTH]: "month",
};

/** @param source the journal whose position is answered */
export function meteringService(
  ledger: Ledger,
  source: string,
): Partial<ServiceImpl<typeof MeteringService>> {
  return {
    async getUsage(request) {
      const window = checkedWindow(request);
      const cut = cuts[request.window];
      const tenant = request.tenant || undefined;
      const { rows, position } = await asked(async () => ({
        // Read before the rows: these hold all up to there, and perhaps more.
        position: await ledger.position(source),
        // One row more tells that there are more.
        rows: await ledger.usage({ tenant, window, cut, limit: maxRows + 1 }),
      }));
      if (rows.length > maxRows) {
        throw rpcError(
          Code.ResourceExhausted,
          `more than ${maxRows} rows: ask for one tenant, for a shorter time (start, end), or for days or months instead of hours (window)`,
        );
      }
      return {
        rows: rows.map((row) => answered(row, cut, window)),
        journalSeq: position?.seq ?? 0n,
      };
    },
  };
}

/** @throws ConnectError UNAVAILABLE when the ledger's database is away */
async function asked<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof StoreUnavailableError) throw rpcError(Code.Unavailable, error.message);
    throw error;
  }
}

/** @throws ConnectError INVALID_ARGUMENT naming the field */
function checkedWindow({ tenant, start, end }: GetUsageRequest): Window {
  if (tenant !== "" && !isKey(tenant)) throw rpcError(Code.InvalidArgument, `tenant: ${keyRule}`);
  const from = fromTimestamp(start, undefined);
  const until = fromTimestamp(end, undefined);
  if (from !== undefined && until !== undefined && until <= from) {
    throw rpcError(Code.InvalidArgument, "end: must be after start (it is exclusive)");
  }
  return windowOf(from, until);
}

/** @throws ConnectError OUT_OF_RANGE when a sum does not fit the contract's u64 */
function answered({ tenant, bucket, used, starts, instances }: UsageRow, cut: Cut, window: Window) {
  const over = meterNames.find((name) => used[name] > maxU64);
  if (over) {
    throw rpcError(
      Code.OutOfRange,
      `${over} of ${tenant} is ${used[over]}, more than 64 bits hold: ask for a shorter time (start, end)`,
    );
  }
  const bounds = cut === "total" ? undefined : boundsOf(cut, bucket, window);
  return {
    tenant,
    start: bounds && toTimestamp(bounds.start),
    end: bounds && toTimestamp(bounds.end),
    ...used,
    activeMs: used.wallMs > used.frozenMs ? used.wallMs - used.frozenMs : 0n,
    starts,
    instances,
  };
}
