/** Why a call is not granted. The shell turns each into a Connect/gRPC code with its typed detail. */
import type { Exit, InstanceRef, UsageLimit } from "@warren/proto/common";

/** Too many calls wait already, or undefined. */
export function crowded(
  calls: readonly unknown[],
  what: string,
  { maxWaitingPerTenant: limit }: { readonly maxWaitingPerTenant: number },
): Refusal | undefined {
  return calls.length >= limit ? { kind: "too-many", what, limit } : undefined;
}

export type Refusal =
  | { readonly kind: "no-tenant"; readonly tenant: string }
  | { readonly kind: "deleting"; readonly tenant: string }
  | { readonly kind: "no-source"; readonly tenant: string }
  | { readonly kind: "no-release"; readonly digest: string }
  | { readonly kind: "no-node-of-name"; readonly node: string }
  | { readonly kind: "changed"; readonly tenant: string; readonly expected: number; readonly version: number }
  /** A gateway has a request for one that serves none. */
  | { readonly kind: "no-http"; readonly tenant: string }
  | { readonly kind: "no-volume"; readonly tenant: string; readonly name: string }
  | { readonly kind: "volume"; readonly tenant: string; readonly name: string; readonly message: string }
  | { readonly kind: "has-volumes"; readonly tenant: string; readonly names: readonly string[] }
  | { readonly kind: "loses-volumes"; readonly node: string; readonly volumes: readonly string[] }
  | { readonly kind: "bad-spec"; readonly field: string; readonly message: string }
  | { readonly kind: "rolled-back"; readonly tenant: string; readonly message: string; readonly exit?: Exit }
  | { readonly kind: "node-busy"; readonly tenant: string; readonly message: string }
  | { readonly kind: "drain-cancelled"; readonly message: string }
  | { readonly kind: "late"; readonly what: string }
  | { readonly kind: "too-many"; readonly what: string; readonly limit: number }
  | { readonly kind: "cap"; readonly maxConcurrent: number; readonly live: number; readonly waiting: number }
  | {
      readonly kind: "backoff";
      readonly tenant: string;
      readonly delayMs: number;
      readonly failures: number;
      readonly exit?: Exit;
    }
  | { readonly kind: "start-failed"; readonly instance: InstanceRef; readonly exit: Exit }
  | {
      readonly kind: "no-node";
      readonly tenant: string;
      readonly refused: Readonly<Record<string, number>>;
      readonly transient: boolean;
    }
  | {
      readonly kind: "limit";
      readonly tenant: string;
      readonly limit: UsageLimit;
      readonly used: bigint;
      readonly until: number;
    }
  | { readonly kind: "deadline"; readonly tenant: string; readonly what: string }
  | { readonly kind: "store-down"; readonly message: string }
  | { readonly kind: "join-again"; readonly message: string }
  | { readonly kind: "node-reports"; readonly node: string; readonly message: string }
  | { readonly kind: "duplicate-node"; readonly node: string; readonly message: string };
