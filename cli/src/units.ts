/** Quantities as people read them. Approximate, all but money: the exact ones are in --json and --csv. */
import { decimalOf } from "@warren/metering/billing/rational";
import { bytes } from "./output.ts";

/** "12.3 s", "4.5 h" of microseconds of CPU. */
export function cpuText(us: bigint): string {
  const seconds = Number(us) / 1e6;
  if (seconds >= 3_600) return `${short(seconds / 3_600)} h`;
  return seconds > 0 && seconds < 1 ? `${seconds.toFixed(3)} s` : `${short(seconds)} s`;
}

/** "1.5 MiB·s", "3.0 GiB·s", "2.4 GiB·h" of byte-seconds. */
export function memoryTimeText(byteSeconds: bigint): string {
  const gib = Number(byteSeconds) / 2 ** 30;
  if (gib >= 3_600) return `${short(gib / 3_600)} GiB·h`;
  return gib >= 1 || gib === 0 ? `${short(gib)} GiB·s` : `${short(gib * 1_024)} MiB·s`;
}

/** "950", "12.3k", "4.5M" */
export function countText(n: bigint): string {
  const units = ["", "k", "M", "G", "T", "P"];
  let value = Number(n);
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return unit === 0 ? `${n}` : `${short(value)}${units[unit]}`;
}

/** "0 B", "3.0 MiB" */
export const bytesText = (n: bigint): string => (n < 1_024n ? `${n} B` : bytes(Number(n)));

/** "65s" reads worse than "1m5s", "4000h" better than "166d16h". */
export function timeText(ms: bigint): string {
  const seconds = Number(ms) / 1_000;
  return seconds >= 3_600 ? `${short(seconds / 3_600)} h` : `${short(seconds)} s`;
}

/** Three digits, as far as they go: "0.12", "1.2", "12.3", "123", "12345". */
function short(value: number): string {
  if (value === 0) return "0";
  if (value >= 100) return `${Math.round(value)}`;
  return value >= 0.995 ? value.toFixed(1) : value.toFixed(2);
}

/**
 * "12.34 EUR". What is less than the currency's smallest coin is shown in full, so that it does not look like nothing.
 * @param micros millionths of the currency's unit
 * @param currency ISO 4217
 */
export function moneyText(micros: bigint, currency: string): string {
  const size = micros < 0n ? -micros : micros;
  const coins = coinDigits(currency);
  const tiny = size > 0n && size < 10n ** BigInt(6 - coins);
  const text = decimalOf({ numerator: size, denominator: 1_000_000n }, tiny ? 6 : coins);
  const [whole, fraction = ""] = text.split(".");
  const shown = coins === 0 && !tiny ? whole! : `${whole}.${fraction.padEnd(coins, "0")}`;
  return `${micros < 0n ? "-" : ""}${shown} ${currency}`;
}

/** Digits after the point in the currency's amounts: 2 for EUR, 0 for JPY. */
function coinDigits(currency: string): number {
  try {
    const format = new Intl.NumberFormat("en", { style: "currency", currency });
    return Math.min(6, format.resolvedOptions().maximumFractionDigits ?? 2);
  } catch {
    return 2; // no currency by its form
  }
}
