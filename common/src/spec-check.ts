/**
 * What is wrong with a spec beyond its fields' own rules, by the spec alone: checked by whoever sends one, so that nothing is
 * uploaded in vain, and by the scheduler.
 */
import type { TenantSpec } from "@warren/proto/common";

export interface SpecProblem {
  /** Path of the field: "limits.memory_bytes". */
  readonly field: string;
  readonly message: string;
}

/** Bun itself starts in this much. A limit below is a typing error: "1k", or a unit that was forgotten. */
const leastMemory = 4n * 1024n * 1024n;

export function specProblem({ limits }: TenantSpec): SpecProblem | undefined {
  const memory = limits?.memoryBytes ?? 0n;
  if (memory > 0n && memory < leastMemory) {
    const message = `${memory} bytes is less than Bun itself needs to start: give at least 4 MiB (4m), or 0 for no limit`;
    return { field: "limits.memory_bytes", message };
  }
  return undefined;
}
