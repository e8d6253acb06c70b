/** Moments as people write them on the command line. */
import { parseDuration } from "@warren/common/config";
import { InvalidArgumentError } from "commander";

const iso = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?$/;

/**
 * ms since 1970 of "2026-11-21T10:00:00Z", "2026-11-21", "2026-11" (UTC, their beginnings), or "7d" ago.
 * @throws InvalidArgumentError saying what it may be
 */
export function momentOption(text: string, now = Date.now()): number {
  const ago = parseDuration(text);
  if (ago !== undefined) return now - ago;
  const day = /^(\d{4})-(\d{2})(?:-(\d{2}))?$/.exec(text);
  const ms = day
    ? dateOf(Number(day[1]), Number(day[2]), Number(day[3] ?? 1))
    : iso.test(text)
      ? Date.parse(/(Z|[+-]\d{2}:\d{2})$/.test(text) ? text : `${text}Z`)
      : Number.NaN;
  if (!Number.isFinite(ms)) {
    throw new InvalidArgumentError(
      "It must be a time like 2026-11-21T10:00:00Z, 2026-11-21 or 2026-11 (UTC), or 7d for so long ago.",
    );
  }
  return ms;
}

/** ms since 1970 at which "2026-11" begins. @throws InvalidArgumentError */
export function monthOption(text: string): number {
  const match = /^(\d{4})-(\d{2})$/.exec(text);
  // Its end is a time as well, and the last that the contracts know is that of the year 9999.
  const ms = match && match[1] !== "9999" ? dateOf(Number(match[1]), Number(match[2]), 1) : Number.NaN;
  if (!Number.isFinite(ms)) throw new InvalidArgumentError("It must be a month like 2026-11.");
  return ms;
}

/** NaN where there is no such day: Date makes 31 April into 1 May. */
function dateOf(year: number, month: number, day: number): number {
  const ms = Date.UTC(year, month - 1, day);
  const date = new Date(ms);
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? ms : Number.NaN;
}
