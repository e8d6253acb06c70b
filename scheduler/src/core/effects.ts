/** Everything the core can ask of the shell. */
import type { Backup, Event, ExitReason, InstanceRef, TenantSpec, VolumeState } from "@warren/proto/common";
import type { TenantEndpoint } from "@warren/proto/scheduler";
import type { Input, NodeRecord, TenantRecord } from "./inputs.ts";
import type { ReachedLimit } from "./model.ts";
import type { Refusal } from "./refusal.ts";
import type { Displaced } from "./volumes.ts";

/** What a granted call is answered with; the service adds what the caller needs of it. */
export type Answer =
  | { readonly kind: "ensured"; readonly instance: string; readonly cold: boolean }
  | { readonly kind: "stopped"; readonly stopped: readonly InstanceRef[] }
  | { readonly kind: "reloaded"; readonly instances: readonly InstanceRef[] }
  | {
      readonly kind: "drained";
      readonly moved: number;
      readonly stopped: number;
      /** Volumes, "tenant/name", that could not be backed up by the deadline. */
      readonly unsaved: readonly string[];
    }
  | { readonly kind: "backup"; readonly backup: Backup; readonly unchanged: boolean }
  | { readonly kind: "forgotten"; readonly volumes: readonly Displaced[] }
  | { readonly kind: "done" };

/** What is to be persisted: a record of the state log. */
export type Write =
  | { readonly kind: "tenant"; readonly record: TenantRecord }
  | { readonly kind: "tenant-gone"; readonly key: string }
  /** All of the tenant's that are reached; none: the record goes. */
  | { readonly kind: "limits"; readonly tenant: string; readonly reached: readonly ReachedLimit[] }
  | { readonly kind: "volume"; readonly record: VolumeState }
  | { readonly kind: "volume-gone"; readonly tenant: string; readonly name: string }
  | { readonly kind: "node"; readonly record: NodeRecord }
  | { readonly kind: "node-gone"; readonly name: string }
  | { readonly kind: "placement"; readonly ref: InstanceRef }
  | { readonly kind: "placement-gone"; readonly id: string };

export type EndpointMessage =
  | {
      readonly update: "complete";
      readonly node: string;
      readonly n: number;
      readonly endpoints: readonly TenantEndpoint[];
      readonly agentUrl: string;
    }
  | {
      readonly update: "incremental";
      readonly n: number;
      readonly endpoints: readonly TenantEndpoint[];
      readonly withdrawn: readonly string[];
    };

/** A volume that an instance is started with. */
export interface StartVolume {
  readonly name: string;
  /** Of the copy. */
  readonly id: string;
  readonly mustExist: boolean;
  /** To be brought to the node first. */
  readonly restore: Backup | undefined;
  /** Of what is brought back, all files together. */
  readonly maxBytes: number;
}

export type Effect =
  /** In order; then feed `durable`, or `failed` when the store did not take it. */
  | { readonly type: "persist"; readonly write: Write; readonly durable?: Input; readonly failed?: Input }
  | {
      readonly type: "start";
      readonly ref: InstanceRef;
      readonly spec: TenantSpec;
      readonly volumes: readonly StartVolume[];
      readonly agentUrl: string;
      readonly incarnation: string;
      /** What visitors call it. */
      readonly hostName: string;
      readonly timeoutMs: number;
    }
  | {
      readonly type: "stop";
      readonly ref: InstanceRef;
      readonly reason: ExitReason;
      readonly graceMs: number;
      /** Not if it was thawed since. */
      readonly ifWakes?: bigint;
      readonly agentUrl: string;
    }
  | {
      readonly type: "freeze";
      readonly ref: InstanceRef;
      readonly ifWakes: bigint;
      readonly pageOut: boolean;
      /** To be named in the answer. */
      readonly command: number;
      readonly agentUrl: string;
    }
  | {
      readonly type: "thaw";
      readonly ref: InstanceRef;
      readonly command: number;
      readonly agentUrl: string;
    }
  /** Then feed `backed-up`. */
  | {
      readonly type: "backup-volume";
      readonly tenant: string;
      readonly name: string;
      /** Of the copy. */
      readonly id: string;
      /** Id of the backup that is to be. */
      readonly backup: string;
      /** Of the last one. */
      readonly fingerprint: string;
      /** Of all files together. */
      readonly maxBytes: number;
      readonly agentUrl: string;
    }
  /** Then feed `volume-removed`. */
  | {
      readonly type: "remove-volume";
      readonly call: string;
      readonly tenant: string;
      readonly name: string;
      readonly id: string;
      readonly agentUrl: string;
    }
  | { readonly type: "answer"; readonly call: string; readonly answer: Answer }
  | { readonly type: "refuse"; readonly call: string; readonly refusal: Refusal }
  /** To one watcher, or to all. */
  | { readonly type: "endpoints"; readonly to?: string; readonly message: EndpointMessage }
  | {
      readonly type: "event";
      readonly tenant: string;
      readonly payload: Exclude<Event["payload"], { case: undefined }>;
      /** Where the same may be said twice; else it gets the next one of this epoch. */
      readonly id?: string;
    };
