/** Values of a spec in people's units, for control planes that build specs as objects. */
import type { Duration } from "@bufbuild/protobuf/wkt";
import { parseCores, parseDuration, parseSize } from "@warren/common/quantities";
import { toDuration } from "@warren/common/time";

/** What each kind of value looks like, for error messages. */
export const looks = {
  duration: "a duration like 250ms, 30s, 5m or 1h",
  size: "a size like 256m or 1GiB",
  cores: 'cores like "0.5" or "500m"',
} as const;

function parsed(text: string, parse: (text: string) => number | undefined, look: string): number {
  const value = typeof text === "string" ? parse(text) : undefined;
  if (value === undefined) throw new TypeError(`${JSON.stringify(text)} is not ${look}`);
  return value;
}

/** `duration("5m")`, for fields such as `idle.stopAfter`. @throws TypeError */
export const duration = (text: string): Duration => toDuration(parsed(text, parseDuration, looks.duration));

/** `size("256m")`: bytes, for fields such as `limits.memoryBytes`. @throws TypeError */
export const size = (text: string): bigint => BigInt(parsed(text, parseSize, looks.size));

/** `cores("0.5")`: thousandths of a core, for `limits.cpuMillis`. @throws TypeError */
export const cores = (text: string): number => parsed(text, parseCores, looks.cores);
