/**
 * What the host offers to hold an instance's processes together and within bounds. Everything of the agent that touches
 * the host's kernel stands behind {@link Host} and {@link Kernel}.
 */
import type { Kernel } from "./kernel.ts";

/** Bounds on one instance; 0 means none. */
export interface GroupLimits {
  readonly memoryBytes: number;
  /** In thousandths of a core. */
  readonly cpuMillis: number;
  /** Processes and threads. */
  readonly pids: number;
}

/** The processes of one instance, as a group that none of them can leave by forking. */
export interface Group {
  /** Where it is; in the instance's record, so that the next agent finds it. "" where the host has no groups. */
  readonly path: string;
  /** Given to `Bun.spawn` as `cgroup`. */
  readonly spawnInto: string | undefined;
  /** To be called right after the spawn: brings the processes into what could not be joined before exec. */
  enter(pid: number): void;
  /** Processes in it now, and in groups that it has made below. */
  listPids(): number[];
  /** SIGKILL to all of them at once. */
  killAll(): void;
  /** CPU of all that were ever in it, in microseconds; undefined where that is not counted. */
  cpuUs(): number | undefined;
  /** Memory charged to it in bytes; undefined where that is not counted. */
  memoryBytes(): number | undefined;
  /** Processes of it that the kernel killed because the group was over its memory, ever. */
  oomKills(): number;
  /** Stops and continues all its processes as one; undefined where the host cannot. */
  readonly freezer: Freezer | undefined;
  /** Asks the kernel to page its memory out; undefined where it must be asked process by process. */
  readonly pageOut: (() => Promise<void>) | undefined;
  /** Removes it if it is empty; whether it is gone. */
  remove(): boolean;
}

export interface Freezer {
  /** The kernel begins; see {@link isFrozen}. Thawing takes effect at once. */
  set(frozen: boolean): void;
  /** Whether no process of the group runs. */
  isFrozen(): boolean;
}

export type HostKind = "cgroup-v2" | "cgroup-hybrid" | "none" | "portable";

export interface Host {
  readonly kind: HostKind;
  readonly kernel: Kernel;
  /** Whether groups hold memory, CPU and pids: what the rung `cgroup` needs. */
  readonly limits: boolean;
  /** What this host cannot do, one sentence each. */
  readonly missing: readonly string[];
  /**
   * A new group for an instance.
   * @param limits undefined: it is only held together, at the lowest cost
   * @throws Error of the file system
   */
  createGroup(id: string, limits: GroupLimits | undefined): Group;
  /** The group that a record names; harmless if it is gone. */
  openGroup(path: string): Group;
  /** Removes empty groups of this node but for those of these paths: what an agent killed at the wrong moment left. */
  sweep(keep: ReadonlySet<string>): void;
  /** Takes away what was made to hold the groups, if it holds none. */
  close(): void;
}
