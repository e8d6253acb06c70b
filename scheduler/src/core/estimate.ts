/**
 * What is expected of a quantity that varies over time. The peaks of many do not come together: for quantities that are
 * independent of each other, means and variances add up, and deviations do not. A thousand that use 3 ± 1 MiB are expected
 * to peak at 3,000 + 3 × √1000 MiB, not at 6,000. Pure.
 */
export interface Estimate {
  readonly mean: number;
  readonly variance: number;
}

export const nothing: Estimate = { mean: 0, variance: 0 };

/** It does not vary. */
export const exactly = (mean: number): Estimate => ({ mean, variance: 0 });

/** Deviations above the mean that are counted as the peak (DESIGN "Placing"). */
const deviations = 3;

/** What it seldom exceeds. */
export function peakOf({ mean, variance }: Estimate): number {
  return mean + deviations * Math.sqrt(variance);
}

/** The estimate with that mean whose peak is `peak`; one that does not vary if the peak is not above the mean. */
export function peakingAt(mean: number, peak: number): Estimate {
  return { mean, variance: (Math.max(0, peak - mean) / deviations) ** 2 };
}

/** Both together. */
export function plus(a: Estimate, b: Estimate): Estimate {
  return { mean: a.mean + b.mean, variance: a.variance + b.variance };
}

/** A sum without one of its parts. Rounding may leave a little below zero, which is cut off. */
export function minus(sum: Estimate, part: Estimate): Estimate {
  return { mean: Math.max(0, sum.mean - part.mean), variance: Math.max(0, sum.variance - part.variance) };
}

/** What cannot exceed a limit. */
export function limitedTo(estimate: Estimate, limit: number): Estimate {
  if (peakOf(estimate) <= limit) return estimate;
  return peakingAt(Math.min(estimate.mean, limit), limit);
}
