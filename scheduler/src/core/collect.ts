/**
 * Which releases go: per tenant all but those that something names, the newest others (what a rollback may want), and those
 * that came a moment ago, which somebody is about to apply. Pure.
 */
import type { State, Tenant } from "./model.ts";

/** A release as far as it matters here. Times in ms since 1970. */
export interface StoredRelease {
  readonly digest: string;
  readonly tenant: string;
  readonly bytes: number;
  readonly createdAt: number;
}

export interface CollectBounds {
  /** Releases kept per tenant besides those that are named, the newest. */
  readonly count: number;
  /** Of one tenant together; those that are named are kept beyond it, and count. */
  readonly bytes: number;
  /** Younger ones are kept: ms since they came. */
  readonly graceMs: number;
}

export const defaultCollectBounds: CollectBounds = {
  count: 5,
  bytes: 2 * 1024 ** 3,
  graceMs: 3_600_000,
};

/** Digests that a spec names, the one before it where a rollback leads, or an instance runs. */
export function namedReleases(state: State): Set<string> {
  const named = new Set<string>();
  for (const tenant of state.tenants.values()) for (const digest of releasesOf(tenant)) named.add(digest);
  for (const { ref } of state.instances.values()) if (ref.release) named.add(ref.release);
  return named;
}

function releasesOf({ newest, previous }: Tenant): string[] {
  return [newest, previous].flatMap((revision) =>
    revision?.spec.source.case === "release" ? [revision.spec.source.value] : [],
  );
}

/**
 * @param named kept, whoever's they are: tenants may share a release
 * @param exists whether there is such a tenant; of one that was deleted nothing is kept for a rollback
 * @param now ms since 1970
 * @returns digests, of each tenant the oldest first
 */
export function surplus(
  releases: Iterable<StoredRelease>,
  named: ReadonlySet<string>,
  exists: (tenant: string) => boolean,
  bounds: CollectBounds,
  now: number,
): string[] {
  const byTenant = new Map<string, StoredRelease[]>();
  const bytesNamed = new Map<string, number>();
  for (const release of releases) {
    const { digest, tenant, bytes, createdAt } = release;
    if (named.has(digest)) bytesNamed.set(tenant, (bytesNamed.get(tenant) ?? 0) + bytes);
    else if (now - createdAt >= bounds.graceMs) {
      const others = byTenant.get(tenant);
      if (others) others.push(release);
      else byTenant.set(tenant, [release]);
    }
  }
  return [...byTenant].flatMap(([tenant, others]) => {
    const room = exists(tenant) ? bounds : { count: 0, bytes: 0 };
    return beyond(others, room.count, room.bytes - (bytesNamed.get(tenant) ?? 0));
  });
}

/** All but the newest, so many and so large at most. */
function beyond(releases: StoredRelease[], count: number, bytes: number): string[] {
  releases.sort((a, b) => b.createdAt - a.createdAt || (a.digest < b.digest ? -1 : 1));
  let total = 0;
  const kept = releases.findIndex((release, i) => {
    total += release.bytes;
    return i >= count || total > bytes;
  });
  return kept < 0
    ? []
    : releases
        .slice(kept)
        .map(({ digest }) => digest)
        .reverse();
}
