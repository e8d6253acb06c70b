/** What a cluster keeps, as entries of a dump. */
import { type JsonValue, toJson } from "@bufbuild/protobuf";
import type { Warren } from "@warren/client";
import { type Release, ReleaseSchema, type Tenant, TenantSpecSchema } from "@warren/proto/common";
import { allReleases, allTenants } from "../pages.ts";
import type { Entry } from "./archive.ts";

export interface Kept {
  readonly tenants: readonly Tenant[];
  /** Those that tenants' specs name. */
  readonly releases: readonly Release[];
  readonly cordoned: readonly string[];
}

export async function keptBy(warren: Warren, signal: AbortSignal): Promise<Kept> {
  const tenants = await Array.fromAsync(allTenants(warren, signal));
  const wanted = new Set(tenants.map(releaseOf));
  const releases: Release[] = [];
  for await (const release of allReleases(warren, signal))
    if (wanted.has(release.digest)) releases.push(release);
  const { nodes } = await warren.scheduler.listNodes({}, { signal });
  return { tenants, releases, cordoned: nodes.filter((node) => node.cordoned).map(({ name }) => name) };
}

/** The spec that serves: the newest one may have been rolled back. */
const specOf = ({ spec, servingSpec }: Tenant) => servingSpec ?? spec!;

function releaseOf(tenant: Tenant): string {
  const { source } = specOf(tenant);
  return source.case === "release" ? source.value : "";
}

/** @param at told before each release, how many came before it */
export async function* entriesOf(
  warren: Warren,
  { tenants, releases, cordoned }: Kept,
  at: (release: Release, done: number) => void,
  signal: AbortSignal,
): AsyncGenerator<Entry> {
  for (const [done, release] of releases.entries()) {
    at(release, done);
    const hex = release.digest.slice("sha256:".length);
    yield { name: `releases/${hex}.json`, json: toJson(ReleaseSchema, release) };
    const bytes = warren.download(release.digest, signal);
    yield { name: `releases/${hex}.tar`, size: Number(release.sizeBytes), bytes };
  }
  for (const tenant of tenants) {
    const spec: JsonValue = toJson(TenantSpecSchema, specOf(tenant));
    yield { name: `tenants/${tenant.spec!.key}.json`, json: spec };
  }
  yield { name: "nodes.json", json: { cordoned } };
}
