/** What the kernel says of another process. */
import { readdirSync, readFileSync } from "node:fs";

export interface Memory {
  /** Resident set, bytes: what is shared counts in full. */
  readonly rss: number;
  /** Proportional set, bytes: what is shared counts by its part. */
  readonly pss: number;
}

/** Clock ticks are 10 ms on every Linux that Bun runs on (USER_HZ). */
const tickMs = 10;

/** CPU of a process so far, in ms, its threads included; without its children. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}

export function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
  const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) * 1024;
  return { rss: bytes("Rss"), pss: bytes("Pss") };
}

/** Processes that carry this text in their environment. */
export function pidsWithEnvironment(text: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/environ`, "latin1").includes(text) ? [Number(name)] : [];
    } catch {
      return []; // gone meanwhile
    }
  });
}
