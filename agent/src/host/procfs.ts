/**
 * What /proc says. Parsers are pure; readers answer undefined for a process that has gone meanwhile, and throw when that
 * cannot be known: an agent without a file descriptor left must not take what it cannot read for what has ended.
 */
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { endianness } from "node:os";
import { errnoOf, isMissing } from "../files.ts";
import type { Stat } from "./kernel.ts";

export function parseStat(text: string): Stat | undefined {
  // The name may hold spaces and brackets of its own: the last bracket ends it.
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open < 0 || close < open) return undefined;
  const rest = text.slice(close + 2).split(" ");
  const field = (n: number) => Number(rest[n - 3]); // numbered as in proc(5)
  const stat = {
    pid: Number(text.slice(0, open)),
    comm: text.slice(open + 1, close),
    state: rest[0] ?? "",
    ppid: field(4),
    pgrp: field(5),
    session: field(6),
    cpuTicks: field(14) + field(15) + field(16) + field(17),
    threads: field(20),
    startTicks: field(22),
  };
  return Number.isFinite(stat.startTicks) ? stat : undefined;
}

export function readStat(pid: number): Stat | undefined {
  const text = read(`/proc/${pid}/stat`);
  return text === undefined ? undefined : parseStat(text);
}

/** All process ids that can be seen. */
export function listPids(): number[] {
  const pids: number[] = [];
  for (const name of readdirSync("/proc")) {
    const first = name.charCodeAt(0);
    if (first >= 48 && first <= 57) pids.push(Number(name));
  }
  return pids;
}

/** A process may make its environment look as large as it likes (PR_SET_MM_MAP): more than this is not read. */
const environBytes = 128 * 1024;

/**
 * One variable of the environment that the process was started with, if it is in the first 128 KiB; "" when it is not,
 * undefined when that cannot be told now.
 */
export function readEnviron(pid: number, name: string): string | undefined {
  const text = readBeginning(`/proc/${pid}/environ`, environBytes);
  // In the middle of its exec a process has none yet: that is not an answer.
  if (!text) return undefined;
  const key = `${name}=`;
  for (const entry of text.split("\0")) if (entry.startsWith(key)) return entry.slice(key.length);
  return "";
}

/** Resident bytes. */
export function readRss(pid: number): number | undefined {
  const pages = read(`/proc/${pid}/statm`)?.split(" ")[1];
  return pages === undefined ? undefined : Number(pages) * pageSize();
}

/** Proportional set size in bytes: shared pages divided among those who share them. Costs 450 µs. */
export function readPss(pid: number): number | undefined {
  const kib = /^Pss:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? "")?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}

/**
 * Undefined also on kernels before 6.2, which do not tell the number: to list the descriptors would cost what a tenant
 * likes, 30 ms for 60,000 of them.
 */
export function countOpenFiles(pid: number): number | undefined {
  return unlessGone<Stats>(() => statSync(`/proc/${pid}/fd`))?.size || undefined;
}

/** Descriptors read for one question, of all processes asked about together: about 0.2 s. */
const fdBound = 65_536;

/**
 * Which of the sockets these processes have open, as [inode, pid]. Stops when all are found, and when the bound is
 * reached: a tenant that has more open than that is not found to hold its sockets, and so hurts itself alone.
 */
export function findSockets(
  pids: readonly number[],
  wanted: ReadonlySet<string>,
  bound = fdBound,
): Map<string, number> {
  const found = new Map<string, number>();
  let left = bound;
  for (const pid of pids) {
    if (found.size >= wanted.size || left <= 0) break;
    if ((countOpenFiles(pid) ?? 0) > left) continue;
    for (const name of unlessGone(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      if (found.size >= wanted.size || left-- <= 0) break;
      const link = unlessGone(() => readlinkSync(`/proc/${pid}/fd/${name}`));
      const inode = /^socket:\[(\d+)\]$/.exec(link ?? "")?.[1];
      if (inode !== undefined && wanted.has(inode)) found.set(inode, pid);
    }
  }
  return found;
}

export function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/** ms since boot. */
export function readUptimeMs(): number {
  return Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
}

/** Bytes that new processes could have without swapping. */
export function readMemAvailable(): number {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "")?.[1];
  return Number(kib ?? 0) * 1024;
}

/** PSI: share of the last 10 s in which tasks waited, in percent; 0 on a kernel without it. */
export function readPressure(resource: "cpu" | "memory" | "io", who: "some" | "full"): number {
  const text = read(`/proc/pressure/${resource}`) ?? "";
  return Number(new RegExp(`^${who} avg10=([\\d.]+)`, "m").exec(text)?.[1] ?? 0);
}

/** Real user id of a process. */
export function readUid(pid: number): number | undefined {
  const uid = /^Uid:\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? "")?.[1];
  return uid === undefined ? undefined : Number(uid);
}

/** Whether there is swap or zram. */
export function hasSwap(): boolean {
  return (read("/proc/swaps") ?? "").trim().split("\n").length > 1;
}

let knownPageSize = 0;

/** From the auxiliary vector (AT_PAGESZ): 4096 on x86, up to 65536 on arm64. */
function pageSize(): number {
  if (knownPageSize > 0) return knownPageSize;
  const words = new BigUint64Array(new Uint8Array(readFileSync("/proc/self/auxv")).buffer);
  if (endianness() === "LE") {
    for (let i = 0; i + 1 < words.length; i += 2) if (words[i] === 6n) knownPageSize = Number(words[i + 1]);
  }
  if (knownPageSize <= 0) knownPageSize = 4096;
  return knownPageSize;
}

const beginning = Buffer.alloc(environBytes);

function readBeginning(path: string, bytes: number): string | undefined {
  return unlessGone(() => {
    const fd = openSync(path, "r");
    try {
      let length = 0;
      for (let n = -1; n !== 0 && length < bytes; length += n) {
        n = readSync(fd, beginning, length, bytes - length, length);
      }
      return beginning.toString("latin1", 0, length);
    } finally {
      closeSync(fd);
    }
  });
}

function read(path: string): string | undefined {
  return unlessGone(() => readFileSync(path, "latin1"));
}

/** Another user's, or PSI that was switched off at boot: what is not for us is as if it were not there. */
const notOurs = new Set(["EACCES", "EPERM", "EOPNOTSUPP"]);

/** @throws Error of the file system (EMFILE, ENFILE, ENOMEM …) where it is not known whether the thing is there */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isMissing(error) || notOurs.has(errnoOf(error))) return undefined;
    throw error;
  }
}
