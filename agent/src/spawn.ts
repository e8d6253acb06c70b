/** Starts a tenant's first process: no shell, no inherited environment, no pipe to the agent. */
import { closeSync, constants, openSync } from "node:fs";
import { errnoOf, makePrivateDirectory, messageOf } from "./files.ts";
import { readStat } from "./procfs.ts";

export interface SpawnPlan {
  readonly command: readonly string[];
  readonly directory: string;
  readonly env: Record<string, string>;
  /** Made for the instance, removed with it. */
  readonly privateDirectories: readonly string[];
  /** Raw files, opened for append, so that the output outlives the agent and truncation is safe. */
  readonly stdout: string;
  readonly stderr: string;
  readonly cgroup: string | undefined;
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
}

/** The tenant's command cannot be run; the message is for the tenant's owner. */
export class SpawnError extends Error {
  override readonly name = "SpawnError";
}

/**
 * Spawns in a session of its own; synchronous, so that no stop can come between the decision and the process.
 * @throws SpawnError
 */
export function spawnTenant(plan: SpawnPlan): Child {
  for (const path of plan.privateDirectories) makePrivateDirectory(path);
  const append = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND;
  const stdout = openSync(plan.stdout, append, 0o600);
  const stderr = openSync(plan.stderr, append, 0o600);
  try {
    const child = Bun.spawn([...plan.command], {
      cwd: plan.directory,
      env: plan.env,
      stdin: "ignore",
      stdout,
      stderr,
      detached: true,
      ...(plan.cgroup ? { cgroup: plan.cgroup } : {}),
    });
    // A tenant must not keep an agent alive that wants to end.
    child.unref();
    const exited = child.exited.then((): ChildExit => {
      const total = child.resourceUsage()?.cpuTime.total;
      return {
        ...(child.exitCode !== null ? { code: child.exitCode } : {}),
        ...(child.signalCode !== null ? { signal: String(child.signalCode) } : {}),
        ...(total !== undefined ? { cpuUs: Number(total) } : {}),
      };
    });
    // Still there even if it has ended already: only the event loop reaps it, and it has not run since.
    const stat = readStat(child.pid);
    return { pid: child.pid, startTicks: stat?.startTicks ?? -1, exited };
  } catch (error) {
    const what = plan.command[0] ?? "";
    switch (errnoOf(error)) {
      case "ENOENT":
        throw new SpawnError(`cannot run ${what}: there is no such program (in ${plan.directory})`);
      case "EACCES":
        throw new SpawnError(`cannot run ${what}: it is not executable for the agent's user`);
      default:
        throw new SpawnError(`cannot run ${what}: ${messageOf(error)}`);
    }
  } finally {
    closeSync(stdout);
    closeSync(stderr);
  }
}
