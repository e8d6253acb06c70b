/** The ledger's rows as the contract has them. */
import { Code, rpcError } from "@warren/common/rpc/errors";
import { toTimestamp } from "@warren/common/time";
import { activeMs } from "./billing/catalog.ts";
import { meterNames } from "./core/meters.ts";
import { boundsOf, type Cut, type Window } from "./core/window.ts";
import type { UsageRow } from "./ledger/ledger.ts";

const maxU64 = 2n ** 64n - 1n;

/** @throws ConnectError OUT_OF_RANGE when a sum does not fit the contract's u64 */
export function answered({ tenant, bucket, used, starts, instances }: UsageRow, cut: Cut, window: Window) {
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
    activeMs: activeMs(used),
    starts,
    instances,
  };
}
