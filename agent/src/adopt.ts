/** What a new agent finds of an instance that another one left. */
import type { Host } from "./host/host.ts";
import { isAlive, type Stat } from "./host/kernel.ts";
import type { Snapshot } from "./processes.ts";
import type { InstanceRecord } from "./records.ts";

export type Found =
  /** Its first process, alive. */
  | { readonly kind: "alive"; readonly stat: Stat }
  | {
      readonly kind: "dead";
      readonly why: string;
      /** Whether its pid and start time mean nothing here: what it left is gone with another kernel. */
      readonly isOfAnotherBoot: boolean;
    };

export function findLeft(
  { process: named, port }: InstanceRecord,
  { kernel }: Host,
  snapshot: Snapshot,
): Found {
  const dead = (why: string, isOfAnotherBoot = false): Found => ({ kind: "dead", why, isOfAnotherBoot });
  if (!named) {
    return dead(
      port > 0
        ? "the agent died while it spawned this instance"
        : "the agent died before it could spawn this instance",
    );
  }
  if (named.bootId !== kernel.bootId) return dead("the host was booted anew", true);
  const stat = snapshot.stats.get(named.pid);
  if (!stat || !kernel.isSameStart(stat.startTicks, named.startTicks) || !isAlive(stat)) {
    return dead("its process ended while no agent was there to see how");
  }
  return { kind: "alive", stat };
}
