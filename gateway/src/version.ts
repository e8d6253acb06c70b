/** The order of endpoint changes. */

/** `EndpointVersion` as a plain value: a higher epoch wins, then a higher n. */
export interface Version {
  readonly epoch: bigint;
  readonly n: bigint;
}

/** Older than anything a scheduler says. */
export const oldest: Version = { epoch: 0n, n: 0n };

/** Negative: a is older than b; 0: the same; positive: newer. */
export function compareVersions(a: Version, b: Version): number {
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  if (a.n !== b.n) return a.n < b.n ? -1 : 1;
  return 0;
}

/** A message without a version is the oldest: it never undoes what is held. */
export function versionOf(version: Version | undefined): Version {
  return version ? { epoch: version.epoch, n: version.n } : oldest;
}
