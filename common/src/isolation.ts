/** The ladder of isolation: which rung a tenant's spec needs. The scheduler filters nodes by it, the agent obeys it. */
import { Isolation, type TenantSpec } from "@warren/proto/common";
import { levelOfFiles } from "./tenant-files.ts";

/** The lowest rung that can hold what the spec limits. */
export function rungOfLimits({ limits }: TenantSpec): Isolation {
  if (!limits) return Isolation.NONE;
  if (limits.memoryBytes > 0n || limits.cpuMillis > 0) return Isolation.CGROUP;
  // By resource limits of a uid that is the instance's own.
  if (limits.pids > 0 || limits.openFiles > 0) return Isolation.USER;
  return Isolation.NONE;
}

/** The rung that a node must have to run the tenant. */
export function neededRung(spec: TenantSpec): Isolation {
  return Math.max(Isolation.NONE, spec.isolation, rungOfLimits(spec), levelOfFiles(spec));
}

/**
 * The rung that the tenant runs on, on a node that has it: what it asks for, else the highest of the node; and for a
 * directory of the host (development), which other users can seldom reach, no more than its limits need.
 */
export function chosenRung(spec: TenantSpec, highest: Isolation): Isolation {
  const needed = neededRung(spec);
  if (spec.isolation !== Isolation.UNSPECIFIED || spec.source.case === "directory") return needed;
  return Math.max(needed, highest);
}

/** "cgroup" */
export function rungName(rung: Isolation): string {
  return (Isolation[rung] ?? String(rung)).toLowerCase();
}
