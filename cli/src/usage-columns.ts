/** The meters as columns of a table. */

import { UsageMeter } from "@warren/proto/common";
import type { TenantUsage } from "@warren/proto/metering";
import { namesOf } from "./names.ts";
import { bytesText, countText, cpuText, memoryTimeText, timeText } from "./units.ts";

export interface UsageColumn {
  readonly title: string;
  /** In the smallest unit that the ledger counts. */
  readonly of: (row: TenantUsage) => bigint;
  readonly text: (value: bigint) => string;
}

const columns: Readonly<Record<Exclude<UsageMeter, UsageMeter.UNSPECIFIED>, UsageColumn>> = {
  [UsageMeter.CPU_SECONDS]: { title: "CPU", of: (row) => row.cpuUs, text: cpuText },
  [UsageMeter.MEMORY_GIB_SECONDS]: {
    title: "MEMORY",
    of: (row) => row.memoryByteSeconds,
    text: memoryTimeText,
  },
  [UsageMeter.ACTIVE_SECONDS]: { title: "ACTIVE", of: (row) => row.activeMs, text: timeText },
  [UsageMeter.FROZEN_SECONDS]: { title: "FROZEN", of: (row) => row.frozenMs, text: timeText },
  [UsageMeter.REQUESTS]: { title: "REQUESTS", of: (row) => row.requests, text: countText },
  [UsageMeter.BYTES_OUT]: { title: "OUT", of: (row) => row.bytesOut, text: bytesText },
  [UsageMeter.STARTS]: { title: "STARTS", of: (row) => row.starts, text: countText },
  [UsageMeter.THAWS]: { title: "THAWS", of: (row) => row.thaws, text: countText },
  [UsageMeter.VOLUME_GIB_HOURS]: {
    title: "VOLUMES",
    of: (row) => row.volumeByteSeconds,
    text: memoryTimeText,
  },
};

/** By the meters' names on the command line. */
export const usageColumns: ReadonlyMap<string, UsageColumn> = new Map(
  [...namesOf(UsageMeter)].map(([name, meter]) => [
    name,
    columns[meter as Exclude<UsageMeter, UsageMeter.UNSPECIFIED>],
  ]),
);
