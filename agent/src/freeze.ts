/**
 * Freezing an instance: nothing of it runs, all of it stays. By its cgroup's freezer as one, else by SIGSTOP to each of
 * its processes until a look finds none running. And paging out what is frozen, where the host has swap.
 */
import { pause } from "@warren/common/time";
import { isStopped, type Kernel, type Stat } from "./host/kernel.ts";
import { type KillTarget, membersOf, send } from "./kill.ts";
import type { ProcessTable } from "./processes.ts";

const pollMs = 1;
const slowestPollMs = 20;
/** A process that waits in the kernel (a disk that does not answer) cannot be frozen. */
const deadlineMs = 5_000;

/**
 * @param isWanted asked between the steps: false once a thaw came in between
 * @returns whether nothing of it runs
 */
export async function freezeProcesses(
  target: KillTarget,
  table: ProcessTable,
  isWanted: () => boolean,
): Promise<boolean> {
  const { freezer } = target.group;
  const until = performance.now() + deadlineMs;
  freezer?.set(true);
  for (
    let wait = pollMs;
    isWanted() && performance.now() < until;
    wait = Math.min(slowestPollMs, wait * 1.5)
  ) {
    if (freezer ? freezer.isFrozen() : stopAll(target, table)) return isWanted();
    await pause(wait);
  }
  return false;
}

/** One round; whether all of them were stopped already. */
function stopAll(target: KillTarget, table: ProcessTable): boolean {
  const running = membersOf(target, table.snapshot()).filter((stat) => !isStopped(stat));
  for (const stat of running) send(table.kernel, stat, "SIGSTOP");
  return running.length === 0;
}

/** Lets it run, at once. Without a freezer those that were ever seen of it are continued: none was born meanwhile. */
export function thawProcesses(target: KillTarget, kernel: Kernel): void {
  const { freezer } = target.group;
  if (freezer) {
    freezer.set(false);
    return;
  }
  for (const [pid, startTicks] of target.seen) {
    const stat = kernel.read(pid);
    if (stat?.startTicks === startTicks) send(kernel, stat, "SIGCONT");
  }
}

/** Whether nothing of it runs, as a new agent finds it. */
export function isFrozen(target: KillTarget, members: readonly Stat[]): boolean {
  const { freezer } = target.group;
  return freezer ? freezer.isFrozen() : members.length > 0 && members.every(isStopped);
}
