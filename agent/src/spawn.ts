/** Starts a tenant's first process: no shell, no inherited environment, no pipe to the agent. */
import { closeSync, constants, fchownSync, openSync } from "node:fs";
import { errnoOf, messageOf } from "./files.ts";
import type { Group } from "./host/host.ts";
import type { Kernel, Stat } from "./host/kernel.ts";
import type { Confinement } from "./sandbox.ts";

export interface SpawnPlan extends Omit<Confinement, "group" | "wrapper"> {
  readonly directory: string;
  readonly env: Record<string, string>;
  /** Raw files, opened for append, so that the output outlives the agent and truncation is safe. */
  readonly stdout: string;
  readonly stderr: string;
  readonly group: Group;
}

/** What starts processes: `bunSpawner` on a host, another one in a test or for another kind of host. */
export interface Spawner {
  /**
   * Synchronous, so that no stop can come between the decision and the process.
   * @throws SpawnError when it is the tenant's fault, Error when it is the host's
   */
  spawn(plan: SpawnPlan): Child;
}

/** How a child of the agent ended. */
export interface ChildExit {
  readonly code?: number;
  readonly signal?: string;
  /** CPU of it and of the children it had reaped, in microseconds. */
  readonly cpuUs?: number;
}

export interface Child {
  readonly pid: number;
  /** With the pid, its name for ever. */
  readonly startTicks: number;
  readonly exited: Promise<ChildExit>;
  /** From now on it does not keep this process alive. Not before: Bun notices the end of such a child 3 to 9 ms later. */
  letGo(): void;
}

/** The tenant's command cannot be run; the message is for the tenant's owner. */
export class SpawnError extends Error {
  override readonly name = "SpawnError";
}

/** Each in a session of its own. */
export function bunSpawner(kernel: Kernel): Spawner {
  return { spawn: (plan) => spawnTenant(kernel, plan) };
}

function spawnTenant(kernel: Kernel, plan: SpawnPlan): Child {
  const append = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND;
  const stdout = openSync(plan.stdout, append, 0o600);
  const stderr = openSync(plan.stderr, append, 0o600);
  try {
    // Its own, so that it may open /dev/stdout.
    if (plan.identity)
      for (const fd of [stdout, stderr]) fchownSync(fd, plan.identity.uid, plan.identity.gid);
    const child = Bun.spawn([...plan.command], {
      cwd: plan.directory,
      env: plan.env,
      stdin: "ignore",
      stdout,
      stderr,
      detached: true,
      ...plan.identity,
      ...(plan.group.spawnInto ? { cgroup: plan.group.spawnInto } : {}),
    });
    const exited = child.exited.then((): ChildExit => {
      const total = child.resourceUsage()?.cpuTime.total;
      return {
        ...(child.exitCode !== null ? { code: child.exitCode } : {}),
        ...(child.signalCode !== null ? { signal: String(child.signalCode) } : {}),
        ...(total !== undefined ? { cpuUs: Number(total) } : {}),
      };
    });
    const stat = settleIn(kernel, plan.group, child);
    return { pid: child.pid, startTicks: stat?.startTicks ?? -1, exited, letGo: () => child.unref() };
  } catch (error) {
    const what = plan.command[0] ?? "";
    switch (errnoOf(error)) {
      case "ENOENT":
        throw new SpawnError(`cannot run ${what}: there is no such program (in ${plan.directory})`);
      case "EACCES":
        throw new SpawnError(
          `cannot run ${what}: ${plan.identity ? "the tenant's uid" : "the agent's user"} may not execute it, or not enter ${plan.directory}`,
        );
      case "EMFILE":
      case "ENFILE":
      case "ENOMEM":
      case "EAGAIN":
        throw error; // the host's fault, not the command's
      default:
        throw new SpawnError(`cannot run ${what}: ${messageOf(error)}`);
    }
  } finally {
    closeSync(stdout);
    closeSync(stderr);
  }
}

/** What it is to the kernel; one that cannot be held, or known later, is ended at once. */
function settleIn(kernel: Kernel, group: Group, child: Bun.Subprocess): Stat | undefined {
  try {
    group.enter(child.pid);
    // Still there even if it has ended already: only the event loop reaps it, and it has not run since.
    return kernel.read(child.pid);
  } catch (error) {
    group.killAll();
    child.kill("SIGKILL");
    throw error;
  }
}
