/** What a caller asked for, checked: tenants, times and windows. */

import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { isKey, keyRule } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp } from "@warren/common/time";
import { UsageWindow } from "@warren/proto/metering";
import { type Cut, type Window, windowOf } from "./core/window.ts";

export const cuts: Readonly<Record<UsageWindow, Cut>> = {
  [UsageWindow.UNSPECIFIED]: "total",
  [UsageWindow.TOTAL]: "total",
  [UsageWindow.HOUR]: "hour",
  [UsageWindow.DAY]: "day",
  [UsageWindow.MONTH]: "month",
};

/** Nothing for all tenants. @throws ConnectError INVALID_ARGUMENT */
export function askedTenant(tenant: string): string | undefined {
  if (tenant !== "" && !isKey(tenant)) throw rpcError(Code.InvalidArgument, `tenant: ${keyRule}`);
  return tenant || undefined;
}

/** @throws ConnectError INVALID_ARGUMENT naming the field */
export function askedWindow({ start, end }: { start?: Timestamp; end?: Timestamp }): Window {
  const from = fromTimestamp(start, undefined);
  const until = fromTimestamp(end, undefined);
  if (from !== undefined && until !== undefined && until <= from) {
    throw rpcError(Code.InvalidArgument, "end: must be after start (it is exclusive)");
  }
  return windowOf(from, until);
}
