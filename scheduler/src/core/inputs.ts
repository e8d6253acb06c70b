/** Everything that can happen to the core. */
import type {
  Backup,
  InstanceRef,
  Isolation,
  NodeCapacity,
  NodeHost,
  NodePressure,
  Release,
  Instance as ReportedInstance,
  StorageReport,
  TenantSpec,
  Transition,
  UsageReport,
  VolumeState,
} from "@warren/proto/common";

import type { ReachedLimit } from "./model.ts";

/** A tenant as it is persisted. Times in ms since 1970. */
export interface TenantRecord {
  readonly spec: TenantSpec;
  readonly version: number;
  /** The first version whose processes are like its own; absent in a record of an earlier version: its own. */
  readonly since?: number;
  /** What served before, for a rollback. */
  readonly previous?: { readonly spec: TenantSpec; readonly version: number; readonly since: number };
  /** The newest did not become ready: `previous` serves on. */
  readonly rejected?: boolean;
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** A node of the roster as it is persisted. */
export interface NodeRecord {
  readonly name: string;
  readonly agentUrl: string;
  readonly bootId: string;
  readonly cordoned: boolean;
}

/** What a scheduler before this one had persisted. */
export interface Loaded {
  readonly tenants: readonly TenantRecord[];
  /** Limits on use that were reached; of some the period may be over, or the tenant gone. */
  readonly limits: readonly ReachedLimit[];
  readonly releases: readonly Release[];
  readonly nodes: readonly NodeRecord[];
  readonly placements: readonly InstanceRef[];
  readonly volumes: readonly VolumeState[];
}

export interface JoinInfo {
  readonly node: string;
  readonly agentUrl: string;
  readonly bootId: string;
  readonly incarnation: string;
  readonly version: string;
  readonly capacity: NodeCapacity;
  readonly isolation: readonly Isolation[];
  /** Absent from an agent of an earlier version. */
  readonly host?: NodeHost;
  readonly labels: Readonly<Record<string, string>>;
  readonly allowDirectories: boolean;
}

export interface TouchEntry {
  readonly instance: string;
  /** ms since the last use. */
  readonly idleMs: number;
  readonly inFlight: number;
  /** `n` of the newest version seen, of this epoch; 0 otherwise. */
  readonly seen: number;
  readonly sealed: boolean;
}

/** How a freeze, a page-out or a thaw ended. */
export type SleepOutcome =
  /** `wakes` as the agent says. */
  | { readonly kind: "done"; readonly wakes?: bigint }
  /** It was thawed since, or just now: it is awake. */
  | { readonly kind: "thawed"; readonly wakes: bigint }
  /** The agent does not know it. */
  | { readonly kind: "gone" }
  /** The node has as many awake as it may. */
  | { readonly kind: "full"; readonly message: string }
  | { readonly kind: "failed"; readonly message: string }
  /** Nobody knows whether it was done, or may be yet. */
  | { readonly kind: "unknown"; readonly message: string };

/** How a backup ended. */
export type BackupOutcome =
  | { readonly kind: "made"; readonly backup: Backup }
  /** The volume is as it was at the last one. */
  | { readonly kind: "unchanged"; readonly asOf: Backup["asOf"] }
  | { readonly kind: "failed"; readonly message: string };

/** How a StartInstance ended. */
export type StartOutcome =
  | { readonly kind: "answered"; readonly instance: ReportedInstance }
  /** The agent refused: nothing was started. */
  | {
      readonly kind: "refused";
      readonly message: string /** Another node might take it. */;
      readonly elsewhere: boolean;
    }
  /** Nobody knows whether it was started. */
  | { readonly kind: "unknown"; readonly message: string };

export type Input =
  | { readonly type: "load"; readonly loaded: Loaded }
  | {
      readonly type: "apply";
      readonly call: string;
      readonly spec: TenantSpec;
      /** Only if the tenant is at this version. */
      readonly expected?: number;
    }
  | { readonly type: "apply-durable"; readonly call: string; readonly record: TenantRecord }
  | { readonly type: "delete-durable"; readonly tenant: string }
  | { readonly type: "delete-failed"; readonly tenant: string; readonly message: string }
  | {
      readonly type: "not-durable";
      readonly call: string;
      readonly message: string;
      /** The spec that was offered, if it was one. */
      readonly tenant?: string;
      readonly version?: number;
    }
  | { readonly type: "release"; readonly release: Release }
  /** A node has it, ahead of its first start there. */
  | { readonly type: "release-fetched"; readonly digest: string; readonly node: string }
  /** It is about to be removed: no spec may name it any more. */
  | { readonly type: "release-going"; readonly digest: string }
  | { readonly type: "release-gone"; readonly digest: string }
  | { readonly type: "ensure"; readonly call: string; readonly tenant: string; readonly deadline: number }
  | { readonly type: "cancel"; readonly call: string; readonly tenant: string }
  | { readonly type: "touch"; readonly source: string; readonly entries: readonly TouchEntry[] }
  | {
      readonly type: "operation";
      readonly call: string;
      readonly kind: "stop" | "restart" | "delete";
      readonly tenant: string;
      readonly deadline: number;
      /** Of a delete: without it one that has volumes is refused. */
      readonly volumes?: "keep" | "remove";
    }
  | { readonly type: "clear-backoff"; readonly tenant: string }
  | {
      readonly type: "reload";
      readonly call: string;
      readonly tenant: string;
      readonly deadline: number;
    }
  | { readonly type: "placement-durable"; readonly instance: string }
  | { readonly type: "placement-failed"; readonly instance: string; readonly message: string }
  | { readonly type: "started"; readonly instance: string; readonly outcome: StartOutcome }
  | {
      readonly type: "stopped";
      readonly instance: string;
      readonly gone?: ReportedInstance;
      readonly error?: string;
      /** It was not stopped, since it was thawed meanwhile: its wakes now. */
      readonly thawed?: bigint;
    }
  | {
      readonly type: "slept";
      readonly instance: string;
      readonly command: number;
      readonly outcome: SleepOutcome;
    }
  | { readonly type: "join"; readonly call: string; readonly info: JoinInfo }
  | {
      readonly type: "report";
      readonly call: string;
      readonly node: string;
      readonly incarnation: string;
      readonly fencedEpoch: bigint;
      readonly transitions: readonly Transition[];
      readonly usages: readonly UsageReport[];
      readonly storages?: readonly StorageReport[];
      readonly pressure?: NodePressure;
      readonly inventory?: readonly ReportedInstance[];
      /** Copies of volumes that it holds, with the inventory. */
      readonly copies?: readonly StorageReport[];
    }
  | { readonly type: "cordon"; readonly call: string; readonly node: string; readonly cordoned: boolean }
  | { readonly type: "cordon-durable"; readonly call: string }
  | {
      readonly type: "cordon-failed";
      readonly call: string;
      readonly node: string;
      readonly before: boolean;
    }
  | {
      readonly type: "drain";
      readonly call: string;
      readonly node: string;
      /** The caller's, and that of the drain (mono). */
      readonly deadline: number;
      readonly until: number;
    }
  | {
      readonly type: "forget";
      readonly call: string;
      readonly node: string;
      /** Although its agent reports. */
      readonly force: boolean;
      /** Also if it holds volumes of which there is no backup. */
      readonly loseVolumes?: boolean;
    }
  | { readonly type: "remove-volume"; readonly call: string; readonly tenant: string; readonly name: string }
  | {
      readonly type: "volume-removed";
      readonly call: string;
      readonly tenant: string;
      readonly name: string;
      readonly id: string;
      readonly error?: string;
    }
  | { readonly type: "volume-durable"; readonly call: string }
  | {
      readonly type: "restore-volume";
      readonly call: string;
      readonly tenant: string;
      readonly name: string;
      /** "" for the newest. */
      readonly backup: string;
    }
  | { readonly type: "backup-volume"; readonly call: string; readonly tenant: string; readonly name: string }
  | {
      readonly type: "backed-up";
      readonly tenant: string;
      readonly name: string;
      readonly id: string;
      readonly outcome: BackupOutcome;
    }
  | {
      readonly type: "watcher-up";
      readonly watcher: string;
      readonly gateway?: { readonly publicUrl: string };
    }
  | { readonly type: "gateway-down"; readonly gateway: string }
  | { readonly type: "limits-reached"; readonly reached: readonly ReachedLimit[] }
  | { readonly type: "tick" };
