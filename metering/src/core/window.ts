/** Windows of usage: whole UTC hours, as the ledger is cut. Pure. */
import { dayMs, hourMs } from "./plausible.ts";

/** How usage is cut. */
export type Cut = "total" | "hour" | "day" | "month";

export interface Window {
  /** First hour, in hours since 1970. */
  readonly fromHour: number;
  /** First hour that does not count any more, in hours since 1970. */
  readonly untilHour: number;
}

/** Further than any date goes (year ±275,000), in hours since 1970. */
const farthestHour = 2_400_000_000;

/**
 * The hours that begin at or after `start`, cut to its hour, and before `end`; of an hour that `end` falls into, all.
 * @param start ms since 1970; absent: from the beginning
 * @param end ms since 1970, exclusive; absent: all there is
 */
export function windowOf(start: number | undefined, end: number | undefined): Window {
  const clamp = (hour: number) => Math.min(farthestHour, Math.max(-farthestHour, hour));
  return {
    fromHour: clamp(start === undefined ? -farthestHour : Math.floor(start / hourMs)),
    untilHour: clamp(end === undefined ? farthestHour : Math.ceil(end / hourMs)),
  };
}

/**
 * When a bucket begins and ends, in ms since 1970: no wider than the hours that were asked for.
 * @param bucket number of the hour, day or calendar month since 1970
 */
export function boundsOf(
  cut: Exclude<Cut, "total">,
  bucket: number,
  window: Window,
): { start: number; end: number } {
  return {
    start: Math.max(beginOf(cut, bucket), window.fromHour * hourMs),
    end: Math.min(beginOf(cut, bucket + 1), window.untilHour * hourMs),
  };
}

function beginOf(cut: Exclude<Cut, "total">, bucket: number): number {
  // Months beyond the last, as Date carries them, are those of later years.
  if (cut === "month") return Date.UTC(1970, bucket);
  return bucket * (cut === "hour" ? hourMs : dayMs);
}

/** When the hour, day or calendar month that `at` lies in begins; all in ms since 1970. */
export function startOfCut(cut: Exclude<Cut, "total">, at: number): number {
  if (cut === "month") {
    const date = new Date(at);
    return Date.UTC(date.getUTCFullYear(), date.getUTCMonth());
  }
  const span = cut === "hour" ? hourMs : dayMs;
  return Math.floor(at / span) * span;
}
