/** Reads what an instance's processes use at this moment. */
import type { Group } from "./host/host.ts";
import { type Kernel, type Stat, ticksPerSecond } from "./host/kernel.ts";
import type { Sample } from "./usage.ts";

/** A process of it, and what is known of it already. */
export type Member = Pick<Stat, "pid"> & Partial<Pick<Stat, "cpuTicks" | "rssBytes">>;

/** @param whole also what is dear to read: PSS (450 µs a process) and open files */
export function takeSample(kernel: Kernel, members: readonly Member[], group: Group, whole: boolean): Sample {
  const sum = (read: (pid: number) => number | undefined) =>
    members.reduce((total, stat) => total + (read(stat.pid) ?? 0), 0);
  const rssBytes = members.reduce((total, stat) => total + (stat.rssBytes ?? kernel.rss(stat.pid) ?? 0), 0);
  const ticks = members.reduce((total, stat) => total + (stat.cpuTicks ?? 0), 0);
  const groupMemoryBytes = group.memoryBytes();
  return {
    cpuUs: group.cpuUs() ?? (ticks * 1_000_000) / ticksPerSecond,
    rssBytes,
    pids: members.length,
    groupMemoryBytes,
    ...(whole
      ? {
          openFiles: sum(kernel.openFiles),
          // A host that cannot tell the proportional share tells the resident one.
          pssBytes: groupMemoryBytes === undefined ? sum(kernel.pss) || rssBytes : undefined,
        }
      : {}),
  };
}
