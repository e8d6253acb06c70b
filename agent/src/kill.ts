/**
 * Ends every process of an instance, and looks until none is left (rule 5): SIGTERM to the app (recipients.ts), the
 * grace, SIGKILL to all that belong to it, wherever they have moved. Only then may the instance be called EXITED.
 */
import { pause } from "@warren/common/time";
import { errnoOf, messageOf } from "./files.ts";
import type { Group } from "./host/host.ts";
import { isAlive, isSameAndAlive, isStopped, type Kernel, type Stat } from "./host/kernel.ts";
import type { Identity, ProcessTable, Snapshot } from "./processes.ts";
import { recipients } from "./recipients.ts";

export interface KillTarget {
  readonly id: string;
  readonly main?: { readonly pid: number; readonly startTicks: number };
  /** The user id that is its own, if it has one. */
  readonly uid?: number;
  /** Its processes have a uid that the agent's own are not of, and so cannot leave their group, where there is one. */
  readonly isOwned: boolean;
  readonly group: Group;
  readonly seen: Map<number, number>;
  /** Name of the program around its command, which would end at SIGTERM and take the command along unasked. */
  readonly wrapper?: string;
}

export interface KillOptions {
  /** ms until SIGKILL is used; may become less at once while this waits. */
  readonly graceLeftMs: () => number;
  /** Aborts when the first process has ended. */
  readonly exited: AbortSignal;
  /** Called with the processes found at the first look, ended ones too, before any of them is signalled. */
  readonly found: (members: readonly Stat[]) => void;
  /** Called once nothing is left, before the cgroup and its counters go. */
  readonly empty: () => void;
  /** Called now and then while processes withstand SIGKILL, with those left. */
  readonly stuck: (left: readonly Stat[]) => void;
  /** Ends the wait (the agent stops); what is left is then the next agent's to end. */
  readonly signal: AbortSignal;
}

const firstPollMs = 1;
const slowestPollMs = 25;
/** A whole look at the process table at least this often while known processes are still there. */
const lookEveryMs = 250;
const stuckEveryMs = 5_000;
/** Once stuck (a process in the kernel's D state), asking more often helps nobody. */
const stuckPollMs = 1_000;
const killUidMs = 2_000;

/**
 * @returns whether nothing is left: false only when the signal aborted
 */
export async function endProcesses(
  target: KillTarget,
  table: ProcessTable,
  options: KillOptions,
): Promise<boolean> {
  const terminated = new Set<string>();
  const continued = new Set<string>();
  let wait = firstPollMs;
  let killedSince: number | undefined;
  let complaints = 0;
  let empty = 0;
  for (let looks = 0; ; looks++) {
    const all = await lookAt(target, table);
    if (looks === 0) options.found(all);
    const left = all.filter(isAlive);
    if (left.length === 0) {
      // Without a cgroup one look is not enough: a process that forks and exits can slip between two reads of /proc.
      if (++empty >= (target.group.path === "" ? 2 : 1)) {
        options.empty();
        return removeGroup(target.group, options.signal);
      }
      await pause(firstPollMs);
      continue;
    }
    empty = 0;
    const now = performance.now();
    if (options.graceLeftMs() <= 0) {
      if (killedSince === undefined) wait = firstPollMs;
      killedSince ??= now;
      target.group.killAll();
      for (const stat of left) send(table.kernel, stat, "SIGKILL");
      // Without a group, one that forks faster than we look is only ended by the kernel, all of its uid at once.
      if (target.group.path === "" && target.uid !== undefined) await killUid(target.uid);
      if (now - killedSince >= (complaints + 1) * stuckEveryMs) {
        complaints++;
        options.stuck(left);
      }
    } else {
      for (const stat of recipients(target, left)) {
        if (isFirst(terminated, stat)) send(table.kernel, stat, "SIGTERM");
      }
      // What was frozen by signals runs on: it is to hear of it, and its children are to be told by it.
      for (const stat of left) {
        if (isStopped(stat) && isFirst(continued, stat)) send(table.kernel, stat, "SIGCONT");
      }
      target.group.freezer?.set(false);
    }
    // A look at those known costs 10 µs each, the whole table 1 ms and more.
    const lookAgainAt = now + lookEveryMs;
    const hadExited = options.exited.aborted;
    do {
      if (options.signal.aborted) return false;
      // Its first process ends: the likeliest moment for all to be gone. After that there is only looking.
      const { exited, signal } = options;
      await pause(wait, exited.aborted ? signal : AbortSignal.any([signal, exited]));
      wait = Math.min(complaints > 0 ? stuckPollMs : slowestPollMs, wait * 1.5);
    } while (
      left.some((stat) => isSameAndAlive(table.kernel, stat)) &&
      performance.now() < lookAgainAt &&
      options.exited.aborted === hadExited &&
      (killedSince !== undefined || options.graceLeftMs() > 0)
    );
  }
}

/** Whether this is the first time that it is met; it is remembered. */
function isFirst(met: Set<string>, stat: Stat): boolean {
  const name = `${stat.pid}:${stat.startTicks}`;
  if (met.has(name)) return false;
  met.add(name);
  return true;
}

/** Whether all of it is surely in its group: no process of a uid of its own can leave that. */
function isConfined(target: KillTarget): boolean {
  return target.isOwned && target.group.path !== "";
}

/**
 * Those in its group; once there are none, those that may have left it, which costs a look at the whole table, and has
 * those among them that have ended.
 */
async function lookAt(target: KillTarget, table: ProcessTable): Promise<readonly Stat[]> {
  const inGroup = groupMembers(target, (pid) => table.kernel.read(pid));
  return inGroup.length > 0 || isConfined(target) ? inGroup : processesOf(target, await table.fresh());
}

/** Its live processes as its group alone tells them: all of one that is confined, and nearly always of any other. */
function groupMembers({ group }: KillTarget, read: (pid: number) => Stat | undefined): Stat[] {
  return group
    .listPids()
    .flatMap((pid) => read(pid) ?? [])
    .filter(isAlive);
}

export const membersOf = (target: KillTarget, snapshot: Snapshot): Stat[] =>
  processesOf(target, snapshot).filter(isAlive);

/** To be measured: with those that have ended and were not looked after yet, where no group counts what they used. */
export function processesOf(target: KillTarget, snapshot: Snapshot): Stat[] {
  if (isConfined(target)) return groupMembers(target, (pid) => snapshot.stats.get(pid));
  const identity: Identity = { ...target, group: target.group.listPids() };
  return snapshot.processesOf(identity);
}

/** The start time is read once more just before: a pid may have become a stranger's since the snapshot. */
export function send(kernel: Kernel, stat: Stat, signal: NodeJS.Signals): void {
  if (!isSameAndAlive(kernel, stat)) return;
  try {
    process.kill(stat.pid, signal);
  } catch (error) {
    // ESRCH: it has just gone. EPERM: a setuid program; it stays in the list, and the instance is not called gone.
    if (errnoOf(error) !== "ESRCH" && errnoOf(error) !== "EPERM") throw error;
  }
}

/** `kill(-1)` of a process of that uid: the kernel signals all others of it in one go, also those being born. */
async function killUid(uid: number): Promise<void> {
  try {
    // As root it would end the host: it looks who it is first.
    const child = Bun.spawn(["/bin/sh", "-c", 'test "$(id -u)" = "$0" && kill -9 -1', String(uid)], {
      cwd: "/",
      env: {},
      uid,
      gid: uid,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
      timeout: killUidMs,
      killSignal: "SIGKILL",
    });
    await child.exited;
  } catch (error) {
    if (errnoOf(error) !== "EAGAIN")
      throw new Error(`uid ${uid} cannot be killed as one: ${messageOf(error)}`);
  }
}

/** The kernel lets go of the last process a moment after it has left the process table. */
async function removeGroup(group: Group, signal: AbortSignal): Promise<true> {
  for (let tries = 0; tries < 20 && !group.remove() && !signal.aborted; tries++) await pause(1, signal);
  return true;
}
