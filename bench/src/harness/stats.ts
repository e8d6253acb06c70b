/** Medians and the spread around them: on a shared machine a mean says little, and a single run nothing. */

/** The middle of some values, and where eight of ten lie. */
export interface Spread {
  readonly n: number;
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
}

/** @throws RangeError when there is nothing to sum up */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError("no values were measured");
  const sorted = values.toSorted((a, b) => a - b);
  return {
    n: sorted.length,
    median: quantile(sorted, 0.5),
    p10: quantile(sorted, 0.1),
    p90: quantile(sorted, 0.9),
  };
}

/**
 * How many times as much as its peer of the same round, over all rounds: what slows a whole round down cancels out.
 * @throws RangeError when the two were not measured equally often
 */
export function ratios(values: readonly number[], peers: readonly number[]): Spread {
  if (values.length !== peers.length)
    throw new RangeError(`${values.length} values for ${peers.length} peers`);
  return spread(values.map((value, i) => value / peers[i]!));
}

/** Between two values it is as far from each as `q` says. */
function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)]!;
  const above = sorted[Math.ceil(at)]!;
  return below + (above - below) * (at - Math.floor(at));
}
