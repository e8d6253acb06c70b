/** Names of the meters' columns, the same in every database. */
import { type MeterName, meterNames } from "../core/meters.ts";

export const meterColumn = {
  cpuUs: "cpu_us",
  memoryByteSeconds: "memory_byte_seconds",
  wallMs: "wall_ms",
  frozenMs: "frozen_ms",
  thaws: "thaws",
  requests: "requests",
  bytesOut: "bytes_out",
  volumeByteSeconds: "volume_byte_seconds",
} as const satisfies Record<MeterName, string>;

/** For a list in SQL, in the order of `meterNames`. */
export const meterColumns = meterNames.map((name) => meterColumn[name]).join(", ");

/** Of an account, in the order of `Account` (core/account.ts). */
export const accountColumns = `tenant, started, ${meterColumns}, seen, first_hour, last_hour, from_hour`;
