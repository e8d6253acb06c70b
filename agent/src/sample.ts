/** Reads what an instance's processes use at this moment, for a bounded time however many they are. */
import type { Group } from "./host/host.ts";
import { isAlive, type Kernel, type Stat, ticksPerSecond } from "./host/kernel.ts";
import type { Sample } from "./usage.ts";

/** A process of it, and what is known of it already. */
export type Member = Pick<Stat, "pid"> & Partial<Stat>;

/** Of so many the resident set and the open files are read, 10 µs each; the others are taken for their like. */
const mostRead = 1_024;
/** Of so many PSS is read, 450 µs each: the largest, and as many drawn from the rest. */
const mostPss = 32;

/**
 * @param processes those that have ended too, until their parents have looked after them and so have their time: left out,
 * it would be counted as lost, and then once more
 * @param whole also what is dear to read: PSS and open files
 */
export function takeSample(
  kernel: Kernel,
  processes: readonly Member[],
  group: Group,
  whole: boolean,
): Sample {
  const members = processes.filter((process) => !hasEnded(process));
  const read = members.slice(0, mostRead).map(({ pid, rssBytes }) => ({
    pid,
    rssBytes: rssBytes ?? kernel.rss(pid) ?? 0,
  }));
  const unread = members.length / Math.max(1, read.length);
  const rssBytes = unread * sumOf(read, (process) => process.rssBytes);
  const ticks = sumOf(processes, (stat) => stat.cpuTicks);
  const groupMemoryBytes = group.memoryBytes();
  // 0 where the host does not tell: no process that can be looked at has none.
  const openFiles = whole ? Math.round(unread * sumOf(read, ({ pid }) => kernel.openFiles(pid))) : 0;
  return {
    cpuUs: group.cpuUs() ?? (ticks * 1_000_000) / ticksPerSecond,
    rssBytes,
    pids: members.length,
    groupMemoryBytes,
    openFiles: openFiles || undefined,
    // A host that cannot tell the proportional share tells the resident one.
    pssBytes: whole && groupMemoryBytes === undefined ? unread * pssOf(kernel, read) || rssBytes : undefined,
  };
}

/**
 * The largest are read, so that what matters is exact. Of the rest some are drawn evenly by size, and the others taken to
 * share as much of their resident set as those do; by the share of the largest, which own most of theirs, it would be
 * many times too much.
 */
function pssOf(kernel: Kernel, processes: readonly Required<Pick<Member, "pid" | "rssBytes">>[]): number {
  const pss = ({ pid }: { pid: number }) => kernel.pss(pid);
  const rss = ({ rssBytes }: { rssBytes: number }) => rssBytes;
  if (processes.length <= mostPss) return sumOf(processes, pss);
  const bySize = processes.toSorted((a, b) => b.rssBytes - a.rssBytes);
  const rest = bySize.slice(mostPss / 2);
  const draws = Math.min(rest.length, mostPss / 2);
  const drawn = Array.from({ length: draws }, (_, i) => rest[Math.floor(((i + 0.5) * rest.length) / draws)]!);
  const share = sumOf(drawn, pss) / Math.max(1, sumOf(drawn, rss));
  return sumOf(bySize.slice(0, mostPss / 2), pss) + share * sumOf(rest, rss);
}

/** Of those that nothing but the pid is known of, none. */
const hasEnded = ({ state = "", threads = 0 }: Member): boolean => !isAlive({ state, threads });

function sumOf<T>(all: readonly T[], value: (one: T) => number | undefined): number {
  return all.reduce((sum, one) => sum + (value(one) ?? 0), 0);
}
