/** Linux: /proc, and netlink for sockets. */

import { type Kernel, ticksPerSecond } from "./kernel.ts";
import { connectionsTo, listenersOf, ownerOf } from "./listener.ts";
import {
  countOpenFiles,
  hasSwap,
  listPids,
  readBootId,
  readEnviron,
  readMemAvailable,
  readPressure,
  readPss,
  readRss,
  readStat,
  readUid,
  readUptimeMs,
} from "./procfs.ts";

export function linuxKernel(): Kernel {
  return {
    bootId: readBootId(),
    list: () => listPids().flatMap((pid) => readStat(pid) ?? []),
    read: readStat,
    isSameStart: (a, b) => a === b,
    ageMs: (stat) => readUptimeMs() - (stat.startTicks / ticksPerSecond) * 1000,
    environ: readEnviron,
    uid: readUid,
    rss: readRss,
    pss: readPss,
    openFiles: countOpenFiles,
    ownerOf,
    listenersOf,
    connectionsTo,
    memoryAvailable: readMemAvailable,
    pressure: readPressure,
    hasSwap,
  };
}
