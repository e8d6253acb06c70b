/** Who a process is. A pid alone names nobody: it is given again (FACTS). */
import { readFileSync } from "node:fs";

/** Equal only for the same process on the same boot. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks since boot. */
  readonly startTime: string;
  readonly bootId: string;
}

let boot: string | undefined;

/** The kernel's boot id; "unknown" where there is no procfs. */
export function bootId(): string {
  boot ??= readText("/proc/sys/kernel/random/boot_id")?.trim() ?? "unknown";
  return boot;
}

/** Start time of a process, or nothing if there is none of that pid. A zombie counts as gone. */
export function startTimeOf(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name may hold anything, even parentheses: fields are counted after its last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

/** Nothing if there is no process of that pid. */
export function identify(pid: number): ProcessIdentity | undefined {
  const startTime = startTimeOf(pid);
  return startTime === undefined ? undefined : { pid, startTime, bootId: bootId() };
}

/** Whether that very process is still alive. */
export function isAlive(identity: ProcessIdentity): boolean {
  return identity.bootId === bootId() && startTimeOf(identity.pid) === identity.startTime;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // gone, or no procfs here: the caller is told by the absence
  }
}
