/** What the agent asks the host's kernel: about processes, sockets and load. One implementation per kind of host. */
import type { Listener } from "./addresses.ts";

/** One process at one moment. */
export interface Stat {
  readonly pid: number;
  readonly comm: string;
  /** "R", "S", "T", "Z", … */
  readonly state: string;
  readonly ppid: number;
  readonly pgrp: number;
  readonly session: number;
  /** User and system time of it and of the children it has reaped, in clock ticks of 10 ms. */
  readonly cpuTicks: number;
  readonly threads: number;
  /** In clock ticks: with the pid and the boot id it names the process for ever. */
  readonly startTicks: number;
  /** Resident bytes, where they come with the rest. */
  readonly rssBytes?: number;
}

/** The kernel shows ticks in USER_HZ, which is 100 on every architecture that Bun runs on. */
export const ticksPerSecond = 100;

/** Whether it still runs: a zombie is dead, unless other threads outlived its first. */
export function isAlive(stat: Pick<Stat, "state" | "threads">): boolean {
  return !((stat.state === "Z" && stat.threads <= 1) || stat.state === "X");
}

/** Whether it is stopped by a signal. */
export function isStopped(stat: Stat): boolean {
  return stat.state === "T" || stat.state === "t";
}

/** Whose a port is, as seen from one instance. */
export type PortOwner =
  | { readonly kind: "nobody" }
  | { readonly kind: "instance" }
  | { readonly kind: "stranger"; readonly who: string };

/** Readers answer undefined for a process that has gone meanwhile, and for what this host cannot tell. */
export interface Kernel {
  /** Names this boot of the host: pids and start times of another one mean nothing. */
  readonly bootId: string;
  /** All processes that can be seen. */
  list(): Stat[];
  read(pid: number): Stat | undefined;
  /** Whether two start times, perhaps told to different agents, are one. */
  isSameStart(a: number, b: number): boolean;
  /** ms since its process was started. */
  ageMs(stat: Stat): number;
  /** One variable of the environment that the process was started with; "" when it does not have it. */
  environ(pid: number, name: string): string | undefined;
  /** Real user id. */
  uid(pid: number): number | undefined;
  /** Resident bytes. */
  rss(pid: number): number | undefined;
  /** Proportional set size in bytes: shared pages divided among those who share them. Dear: 450 µs. */
  pss(pid: number): number | undefined;
  openFiles(pid: number): number | undefined;
  /** Whether all that listens on the port belongs to these processes. */
  ownerOf(port: number, pids: readonly number[]): PortOwner;
  /** Where these processes listen. */
  listenersOf(pids: readonly number[]): Listener[];
  /** Established connections to a local port. */
  connectionsTo(port: number): number;
  /** Bytes that new processes could have without swapping. */
  memoryAvailable(): number;
  /** PSI: share of the last 10 s in which tasks waited, in percent; 0 on a kernel without it. */
  pressure(resource: "cpu" | "memory" | "io", who: "some" | "full"): number;
  /** Whether there is swap to page out to. */
  hasSwap(): boolean;
}

/** Whether the process of that name for ever is still there. */
export function isSameAndAlive(kernel: Kernel, name: { pid: number; startTicks: number }): boolean {
  const stat = kernel.read(name.pid);
  return stat !== undefined && stat.startTicks === name.startTicks && isAlive(stat);
}
