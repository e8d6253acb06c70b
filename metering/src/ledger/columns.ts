/** Meters as columns. */
import { type MeterName, type Meters, meters } from "../core/meters.ts";
import { fromColumn, toColumn } from "./u64.ts";

export const columnOf = {
  cpuUs: "cpu_us",
  memoryByteSeconds: "memory_byte_seconds",
  wallMs: "wall_ms",
  frozenMs: "frozen_ms",
} as const satisfies Record<MeterName, string>;

export type MeterColumns = Record<(typeof columnOf)[MeterName], bigint>;

export const metersIn = (row: MeterColumns): Meters => meters((name) => fromColumn(row[columnOf[name]]));

/** In the order of their columns in both tables. */
export const columnsOf = (value: Meters): [bigint, bigint, bigint, bigint] => [
  toColumn(value.cpuUs),
  toColumn(value.memoryByteSeconds),
  toColumn(value.wallMs),
  toColumn(value.frozenMs),
];
