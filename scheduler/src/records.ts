/** The records of the state log: one JSON text per key. */
import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import {
  type InstanceRef,
  InstanceRefSchema,
  type Release,
  ReleaseSchema,
  TenantSpecSchema,
  UsageLimitSchema,
  type VolumeState,
  VolumeStateSchema,
} from "@warren/proto/common";
import type { StateSnapshot } from "@warren/store";
import type { Write } from "./core/effects.ts";

import type { Loaded, NodeRecord, TenantRecord } from "./core/inputs.ts";
import type { ReachedLimit } from "./core/model.ts";

/** A key of the state log and its value; null removes it. */
export interface Entry {
  readonly key: string;
  readonly value: Uint8Array | null;
}

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

export function entryOf(write: Write): Entry {
  switch (write.kind) {
    case "tenant": {
      const { spec, previous, ...rest } = write.record;
      const before = previous && { ...previous, spec: toJson(TenantSpecSchema, previous.spec) };
      return {
        key: `tenant.${spec.key}`,
        value: encode({ ...rest, spec: toJson(TenantSpecSchema, spec), previous: before }),
      };
    }
    case "tenant-gone":
      return { key: `tenant.${write.key}`, value: null };
    case "limits":
      return {
        key: `limits.${write.tenant}`,
        value: write.reached.length > 0 ? encode(write.reached.map(limitText)) : null,
      };
    case "volume":
      return { key: volumeKey(write.record), value: encode(toJson(VolumeStateSchema, write.record)) };
    case "volume-gone":
      return { key: volumeKey(write), value: null };
    case "node":
      return { key: `node.${write.record.name}`, value: encode(write.record) };
    case "node-gone":
      return { key: `node.${write.name}`, value: null };
    case "placement":
      return { key: `placement.${write.ref.id}`, value: encode(toJson(InstanceRefSchema, write.ref)) };
    case "placement-gone":
      return { key: `placement.${write.id}`, value: null };
  }
}

const volumeKey = ({ tenant, name }: { tenant: string; name: string }): string => `volume.${tenant}.${name}`;

/** A reached limit as JSON has it. */
interface LimitText {
  readonly limit: JsonValue;
  readonly used: string;
  /** ms since 1970 */
  readonly until: number;
}

const limitText = ({ limit, used, until }: ReachedLimit): LimitText => ({
  limit: toJson(UsageLimitSchema, limit),
  used: `${used}`,
  until,
});

const limitFrom = (key: string, { limit, used, until }: LimitText): ReachedLimit => ({
  tenant: key.slice("limits.".length),
  limit: fromJson(UsageLimitSchema, limit, { ignoreUnknownFields: true }),
  used: BigInt(used),
  until,
});

/** The hex digits of "sha256:…": the name of the release's bytes among the blobs. */
export function blobName(digest: string): string {
  return digest.slice("sha256:".length);
}

export function releaseKey(digest: string): string {
  return `release.${blobName(digest)}`;
}

export function releaseEntry(release: Release): Entry {
  return { key: releaseKey(release.digest), value: encode(toJson(ReleaseSchema, release)) };
}

/**
 * Reads what a scheduler before had persisted.
 * @throws Error naming the key of a record that cannot be read: nothing is dropped silently
 */
export function loadedFrom(snapshot: StateSnapshot): Loaded {
  const tenants: TenantRecord[] = [];
  const limits: ReachedLimit[] = [];
  const releases: Release[] = [];
  const nodes: NodeRecord[] = [];
  const placements: InstanceRef[] = [];
  const volumes: VolumeState[] = [];
  for (const [key, bytes] of snapshot.entries) {
    try {
      const json = JSON.parse(new TextDecoder().decode(bytes)) as JsonValue;
      switch (key.slice(0, key.indexOf("."))) {
        case "tenant": {
          const record = json as unknown as TenantRecord & { spec: JsonValue };
          const specOf = (text: unknown) =>
            fromJson(TenantSpecSchema, text as JsonValue, { ignoreUnknownFields: true });
          const { previous } = record;
          tenants.push({
            ...record,
            spec: specOf(record.spec),
            previous: previous && { ...previous, spec: specOf(previous.spec) },
          });
          break;
        }
        case "limits":
          limits.push(...(json as unknown as LimitText[]).map((text) => limitFrom(key, text)));
          break;
        case "release":
          releases.push(fromJson(ReleaseSchema, json, { ignoreUnknownFields: true }));
          break;
        case "volume":
          volumes.push(fromJson(VolumeStateSchema, json, { ignoreUnknownFields: true }));
          break;
        case "node":
          nodes.push(json as unknown as NodeRecord);
          break;
        case "placement":
          placements.push(fromJson(InstanceRefSchema, json, { ignoreUnknownFields: true }));
          break;
        default:
          break; // the store's own (the epoch's seal), or of a later version
      }
    } catch (error) {
      if (key === "epoch") continue;
      throw new Error(`the state log's record ${key} cannot be read: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  return { tenants, limits, releases, nodes, placements, volumes };
}
