/** What the host offers to hold an instance's processes together. */
import { createHash } from "node:crypto";
import type { Logger } from "@warren/common/log";
import { CgroupV2Host } from "./cgroup2.ts";
import { PlainHost } from "./none.ts";

/** The processes of one instance, as a group that none of them can leave by forking. */
export interface Group {
  /** Where it is; in the instance's record, so that the next agent finds it. "" where the host has no groups. */
  readonly path: string;
  /** Given to `Bun.spawn` as `cgroup`. */
  readonly spawnInto: string | undefined;
  /** Processes in it now. */
  listPids(): number[];
  /** SIGKILL to all of them at once. */
  killAll(): void;
  /** CPU of all that were ever in it, in microseconds; undefined where that is not counted. */
  cpuUs(): number | undefined;
  /** Memory charged to it in bytes; undefined where that is not counted. */
  memoryBytes(): number | undefined;
  /** Removes it if it is empty; whether it is gone. */
  remove(): boolean;
}

export interface Host {
  readonly kind: "cgroup-v2" | "none";
  /** A new group for an instance. */
  createGroup(id: string): Group;
  /** The group that a record names; harmless if it is gone. */
  openGroup(path: string): Group;
  /** Removes empty groups of this node but for those of these paths: what an agent killed at the wrong moment left. */
  sweep(keep: ReadonlySet<string>): void;
  /** Takes away what was made to hold the groups, if it holds none. */
  close(): void;
}

/**
 * The best this host has: tried, not guessed from what is mounted.
 * @param choice "auto", or "none" to do without cgroups
 */
export async function detectHost(
  node: string,
  runtimeDirectory: string,
  choice: "auto" | "none",
  log: Logger,
): Promise<Host> {
  if (choice === "auto") {
    // Two cells on one laptop may both call their node "local": the runtime directory tells them apart.
    const mark = createHash("sha256").update(runtimeDirectory).digest("hex").slice(0, 8);
    const found = await CgroupV2Host.probe(`warren-${node}-${mark}`);
    if (found instanceof CgroupV2Host) return found;
    log.warn({ why: found }, "no writable cgroup v2 here: instances are held together by process tree alone");
  }
  return new PlainHost();
}
