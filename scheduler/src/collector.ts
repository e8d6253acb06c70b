/**
 * Removes releases that nobody wants any more: first from the core, so that no spec can name them, then from the state log,
 * which also proves that this scheduler still leads, then their bytes. Whatever fails is tried again at the next pass; bytes
 * that no record names (of an upload that broke off, or of a removal that did) go once they were seen so for a grace period.
 */
import type { Logger } from "@warren/common/log";
import { type Clock, fromTimestamp, pause } from "@warren/common/time";
import type { Release } from "@warren/proto/common";
import type { Blobs } from "@warren/store";
import { blobsOfBackups } from "./core/backups.ts";
import { namedReleases, type StoredRelease, surplus } from "./core/collect.ts";
import type { Engine } from "./engine.ts";
import type { Holds } from "./holds.ts";
import { blobName, releaseKey } from "./records.ts";
import type { StateWriter } from "./state-writer.ts";

export interface CollectorOptions {
  readonly engine: Engine;
  readonly writer: StateWriter;
  readonly blobs: Blobs;
  readonly holds: Holds;
  readonly clock: Clock;
  readonly log: Logger;
  /** Ends it: this scheduler leads no more. */
  readonly signal: AbortSignal;
}

/** Between two passes: a tenth of the grace, within these bounds. */
const soonestMs = 200;
const latestMs = 600_000;

/**
 * Runs until the signal aborts. Begins one grace period after this scheduler took over: what was held for those who uploaded
 * to the one before is not known here.
 */
export async function collectReleases(options: CollectorOptions): Promise<void> {
  const { signal, log, engine } = options;
  const { graceMs } = engine.core.config.releases;
  const everyMs = Math.min(latestMs, Math.max(soonestMs, graceMs / 10));
  const orphans: Orphans = new Map();
  for (await pause(graceMs, signal); !signal.aborted; await pause(everyMs, signal)) {
    try {
      await removeSurplus(options);
      await removeOrphans(options, orphans);
    } catch (error) {
      if (!signal.aborted) log.warn({ err: error }, "releases could not be collected; trying again later");
    }
  }
}

async function removeSurplus({ engine, writer, blobs, holds, clock, log, signal }: CollectorOptions) {
  const { state, config } = engine.core;
  const began = clock.monotonic();
  const named = namedReleases(state);
  const exists = (tenant: string) => state.tenants.has(tenant);
  for (const digest of surplus(
    stored(state.releases.values()),
    named,
    exists,
    config.releases,
    clock.now(),
  )) {
    // Specs that were applied since are held; they were not seen above, so that this must not take longer than a hold.
    if (signal.aborted || clock.monotonic() - began > holds.holdMs / 2) return;
    const release = state.releases.get(digest);
    if (!release || holds.isHeld(digest)) continue;
    await holds.leave(digest, async () => {
      engine.feed({ type: "release-going", digest });
      try {
        await writer.append({ key: releaseKey(digest), value: null });
      } catch (error) {
        // Perhaps it is removed, perhaps not: what the log says counts for the next leader, and for this one it stays.
        engine.feed({ type: "release", release });
        throw error;
      }
      engine.feed({ type: "release-gone", digest });
      if (signal.aborted) return; // the next leader removes the bytes, should they not have come again
      await blobs.delete(blobName(digest));
      log.info(
        { release: digest, tenant: release.tenant, bytes: Number(release.sizeBytes) },
        "a release that nobody wants any more was removed",
      );
    });
  }
}

function* stored(releases: Iterable<Release>): Iterable<StoredRelease> {
  for (const { digest, tenant, sizeBytes, createdAt } of releases) {
    // One without a time is as old as can be.
    yield { digest, tenant, bytes: Number(sizeBytes), createdAt: fromTimestamp(createdAt, 0) };
  }
}

/** Since when (monotonic ms) bytes were seen that no record names, by the digest. */
type Orphans = Map<string, number>;

async function removeOrphans(
  { engine, blobs, holds, clock, log, signal }: CollectorOptions,
  orphans: Orphans,
) {
  const { state, config } = engine.core;
  const { graceMs } = config.releases;
  const named = namedReleases(state);
  const backups = blobsOfBackups(state);
  const isOrphan = (digest: string) =>
    !state.releases.has(digest) &&
    !named.has(digest) &&
    !backups.has(digest.slice("sha256:".length)) &&
    !holds.isHeld(digest);
  const now = clock.monotonic();
  const found = (await blobs.list()).map(({ name }) => `sha256:${name}`).filter(isOrphan);
  const known = new Set(found);
  for (const digest of orphans.keys()) if (!known.has(digest)) orphans.delete(digest);
  for (const digest of found) {
    const since = orphans.get(digest) ?? now;
    orphans.set(digest, since);
    if (signal.aborted || now - since < graceMs || !isOrphan(digest)) continue;
    await holds.leave(digest, () => blobs.delete(blobName(digest)));
    orphans.delete(digest);
    log.info({ release: digest }, "bytes that no release names were removed");
  }
}
