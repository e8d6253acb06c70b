/** Resource limits and no_new_privs: Bun.spawn has neither. */
import { readFileSync } from "node:fs";
import { openLibc } from "./host/libc.ts";

export interface ResourceLimits {
  /** Processes and threads of the user id, all together. */
  readonly processes: number;
  /** Per process. */
  readonly openFiles: number;
}

/**
 * The command under these limits, and without core dumps. By `prlimit` of util-linux, which sets them on itself and
 * becomes the command (1.7 ms): for the agent to set them on a process of another uid, or for a moment on itself, it
 * would need CAP_SYS_RESOURCE, which containers seldom have. More than the agent itself may have is not asked for.
 */
export function limited(
  prlimit: string,
  limits: ResourceLimits,
  most: ResourceLimits,
  command: readonly string[],
): string[] {
  const processes = Math.min(limits.processes, most.processes);
  const openFiles = Math.min(limits.openFiles, most.openFiles);
  return [prlimit, "--core=0", `--nproc=${processes}`, `--nofile=${openFiles}`, "--", ...command];
}

/** What this process may hand on: its own hard limits. */
export function ownLimits(text = readFileSync("/proc/self/limits", "latin1")): ResourceLimits {
  const hard = (name: string) => {
    const value = new RegExp(`^${name}\\s+\\S+\\s+(\\S+)`, "m").exec(text)?.[1];
    return value === undefined || value === "unlimited" ? Number.POSITIVE_INFINITY : Number(value);
  };
  return { processes: hard("Max processes"), openFiles: hard("Max open files") };
}

const prSetNoNewPrivileges = 38;
const prGetNoNewPrivileges = 39;

/**
 * No process started from now on can gain privileges by a setuid program; dropping to another uid still works. Whether
 * that is so now.
 */
export function forbidNewPrivileges(): boolean {
  const libc = openLibc({ prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" } });
  libc?.prctl(prSetNoNewPrivileges, 1, 0, 0, 0);
  return libc?.prctl(prGetNoNewPrivileges, 0, 0, 0, 0) === 1;
}
