/** Quantities for people and for other systems. Pure. */
import type { MeterKind } from "./catalog.ts";
import { decimalOf } from "./rational.ts";

/** Enough to tell one byte-second from the next; the other meters are exact with fewer. */
const digits = 10;

/**
 * In the meter's unit: "3600.25". Exact, but for GiB-seconds beyond the tenth digit.
 * @param base in base units
 */
export const quantityText = ({ perUnit }: MeterKind, base: bigint): string =>
  decimalOf({ numerator: base, denominator: perUnit }, digits);
