/** Durations, sizes and shares of cores as flags take them: exact, in the largest unit that divides them. */

function inLargest(n: number, units: readonly (readonly [string, number])[], plain: string): string {
  const unit = units.find(([, size]) => n >= size && n % size === 0);
  return unit ? `${n / unit[1]}${unit[0]}` : `${n}${plain}`;
}

/** "30m" of ms. */
export function durationText(ms: number): string {
  if (ms === 0) return "0s";
  const units = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const;
  return inLargest(ms, units, "ms");
}

/** "200MiB" */
export function sizeText(bytes: bigint | number): string {
  const units = [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ] as const;
  return inLargest(Number(bytes), units, "");
}

/** "0.5" of thousandths of a core. */
export const coresText = (millis: number): string => `${millis / 1000}`;
