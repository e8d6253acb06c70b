/** Windows of usage: whole UTC hours, as the ledger is cut. Pure. */
import { hourMs } from "./plausible.ts";

/** How usage is cut. */
export type Cut = "total" | "hour" | "day";

export interface Window {
  /** First hour, in hours since 1970. */
  readonly fromHour: number;
  /** First hour that does not count any more, in hours since 1970. */
  readonly untilHour: number;
}

/** Hours that one bucket spans; a total is one bucket, of any span. */
export const hoursPerBucket: Readonly<Record<Cut, number>> = {
  total: Number.MAX_SAFE_INTEGER,
  hour: 1,
  day: 24,
};

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
 * @param bucket number of the hour or day since 1970
 */
export function boundsOf(
  cut: "hour" | "day",
  bucket: number,
  window: Window,
): { start: number; end: number } {
  const span = hoursPerBucket[cut];
  return {
    start: Math.max(bucket * span, window.fromHour) * hourMs,
    end: Math.min((bucket + 1) * span, window.untilHour) * hourMs,
  };
}
