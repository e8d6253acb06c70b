/** Meters as columns. */

import { type MeterName, type Meters, meterNames, meters } from "../../core/meters.ts";
import { meterColumn } from "../columns.ts";
import { fromColumn, toColumn } from "./u64.ts";

export type MeterColumns = Record<(typeof meterColumn)[MeterName], bigint>;

export const metersIn = (row: MeterColumns): Meters => meters((name) => fromColumn(row[meterColumn[name]]));

/** In the order of `meterColumns`. */
export const columnsOf = (value: Meters): bigint[] => meterNames.map((name) => toColumn(value[name]));
