/** A dump into a cluster. What is there already and differs is left alone, unless it is to be overwritten. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { equals, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { Code, isRpcCode, type Warren } from "@warren/client";
import { type Release, ReleaseSchema, TenantSpecSchema } from "@warren/proto/common";
import { exitCodes, UserError } from "../exit.ts";
import { allReleases } from "../pages.ts";
import { type ReadEntry, readArchive } from "./archive.ts";

export interface Restored {
  releases: number;
  tenants: number;
  /** As in the dump already. */
  unchanged: number;
  /** Tenants that are there with another spec. */
  readonly kept: string[];
  /** Nodes that are to be cordoned and have not joined. */
  readonly missingNodes: string[];
}

export interface RestoreOptions {
  readonly overwrite: boolean;
  readonly signal: AbortSignal;
  /** Told at each entry. */
  readonly onEntry: (name: string) => void;
}

export async function restore(warren: Warren, path: string, options: RestoreOptions): Promise<Restored> {
  const restored: Restored = { releases: 0, tenants: 0, unchanged: 0, kept: [], missingNodes: [] };
  const directory = await mkdtemp(join(tmpdir(), "warren-restore-"));
  const there = await digestsOf(warren, options.signal);
  let release: Release | undefined;
  try {
    for await (const entry of readArchive(path)) {
      options.signal.throwIfAborted();
      options.onEntry(entry.name);
      const [kind] = entry.name.split("/");
      if (kind === "nodes.json") await restoreCordons(warren, await entry.json(), restored);
      else if (kind === "tenants") await restoreTenant(warren, await entry.json(), restored, options);
      else if (kind !== "releases")
        throw new UserError(
          `${path} holds ${entry.name}, which this version does not know`,
          exitCodes.failed,
        );
      else if (entry.name.endsWith(".json"))
        release = fromJson(ReleaseSchema, (await entry.json()) as JsonValue);
      else if (release && !there.has(release.digest)) {
        await restoreRelease(warren, release, entry, join(directory, "release"), options.signal);
        restored.releases++;
      }
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return restored;
}

async function digestsOf(warren: Warren, signal: AbortSignal): Promise<Set<string>> {
  const digests = new Set<string>();
  for await (const { digest } of allReleases(warren, signal)) digests.add(digest);
  return digests;
}

/** By way of a file, since an upload may have to be made again. */
async function restoreRelease(
  warren: Warren,
  { digest, tenant, version, manifest }: Release,
  entry: ReadEntry,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const file = await open(path, "w", 0o600);
  const hash = createHash("sha256");
  try {
    for await (const bytes of entry.bytes) {
      hash.update(bytes);
      await file.writeFile(bytes);
    }
  } finally {
    await file.close();
  }
  const found = `sha256:${hash.digest("hex")}`;
  if (found !== digest)
    throw new UserError(`the dump is damaged: ${entry.name} has the digest ${found}`, exitCodes.failed);
  await warren.uploadPacked(tenant, () => createReadStream(path), { version, manifest, signal });
}

async function restoreTenant(
  warren: Warren,
  json: unknown,
  restored: Restored,
  { overwrite, signal }: RestoreOptions,
): Promise<void> {
  const spec = fromJson(TenantSpecSchema, json as JsonValue, { ignoreUnknownFields: true });
  const known = await warren.scheduler.getTenant({ tenant: spec.key }, { signal }).catch((error: unknown) => {
    if (isRpcCode(error, Code.NotFound)) return undefined;
    throw error;
  });
  if (known?.tenant?.spec && equals(TenantSpecSchema, known.tenant.spec, spec)) restored.unchanged++;
  else if (known?.tenant && !overwrite) restored.kept.push(spec.key);
  else {
    await warren.apply(spec);
    restored.tenants++;
  }
}

async function restoreCordons(warren: Warren, json: unknown, restored: Restored): Promise<void> {
  const { cordoned = [] } = json as { cordoned?: string[] };
  for (const node of cordoned) {
    await warren.scheduler.cordonNode({ node }).catch((error: unknown) => {
      if (!isRpcCode(error, Code.NotFound)) throw error;
      restored.missingNodes.push(node);
    });
  }
}
