/**
 * A Unix without /proc (macOS laptops): `ps` for processes, `lsof` for sockets. Enough to develop on; the agent says
 * what is missing. A look costs about 10 ms instead of 1.
 */
import { freemem } from "node:os";
import type { Listener } from "./addresses.ts";
import type { Kernel, PortOwner, Stat } from "./kernel.ts";

/** Asked so long at most: a `ps` that hangs must not hang the agent. */
const timeoutMs = 5_000;
const mostBytes = 16 * 1024 * 1024;
/** `ps` tells the start to the second, and not always the same one. */
const startToleranceTicks = 200;

const fields = ["pid", "ppid", "pgid", "sess", "state", "time", "rss", "lstart", "comm"];

export function portableKernel(): Kernel {
  const run = (command: readonly string[]): string => {
    try {
      const child = Bun.spawnSync([...command], {
        env: { PATH: process.env.PATH ?? "/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL: "C", TZ: "UTC" },
        stdin: "ignore",
        stderr: "ignore",
        timeout: timeoutMs,
        maxBuffer: mostBytes,
      });
      return child.stdout.toString("latin1");
    } catch {
      return ""; // not on this system: to the caller nothing was found
    }
  };
  /** Start times as they were told first: a process keeps its name though `ps` wavers by a second. */
  let names = new Map<number, number>();
  const named = (stat: Stat): Stat => {
    const known = names.get(stat.pid);
    if (known !== undefined && Math.abs(known - stat.startTicks) <= startToleranceTicks) {
      return { ...stat, startTicks: known };
    }
    names.set(stat.pid, stat.startTicks);
    return stat;
  };
  const ps = (...which: string[]): Stat[] =>
    run(["ps", ...which, "-o", fields.map((field) => `${field}=`).join(",")])
      .split("\n")
      .flatMap((line) => parsePs(line) ?? [])
      .map(named);
  const lsof = (...which: string[]) => parseLsof(run(["lsof", "-nP", "-F", "pn", ...which]));

  const hasLsof = Bun.which("lsof", { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/usr/bin` }) !== null;

  return {
    bootId: (
      run(["sysctl", "-n", "kern.bootsessionuuid"]) || run(["sysctl", "-n", "kernel.random.boot_id"])
    ).trim(),
    list: () => {
      const all = ps("-A");
      const live = new Set(all.map((stat) => stat.pid));
      names = new Map([...names].filter(([pid]) => live.has(pid)));
      return all;
    },
    read: (pid) => ps("-p", String(pid))[0],
    isSameStart: (a, b) => Math.abs(a - b) <= startToleranceTicks,
    ageMs: (stat) => Math.max(0, Date.now() - stat.startTicks * 10),
    environ: () => undefined,
    uid: () => undefined,
    rss: (pid) => ps("-p", String(pid))[0]?.rssBytes,
    pss: () => undefined,
    openFiles: () => undefined,
    ownerOf: (port, pids): PortOwner => {
      const listeners = lsof(`-iTCP:${port}`, "-sTCP:LISTEN").filter((one) => one.port === port);
      const stranger = listeners.find((one) => !pids.includes(one.pid));
      if (stranger) return { kind: "stranger", who: `process ${stranger.pid}` };
      // Where there is no lsof, whoever answers is taken for the instance.
      return { kind: listeners.length > 0 || !hasLsof ? "instance" : "nobody" };
    },
    listenersOf: (pids) =>
      lsof("-iTCP", "-sTCP:LISTEN")
        .filter((one) => pids.includes(one.pid))
        .map(({ address, port }) => ({ address, port })),
    connectionsTo: (port) =>
      lsof(`-iTCP:${port}`, "-sTCP:ESTABLISHED").filter((one) => one.port === port).length,
    memoryAvailable: () => freemem(),
    pressure: () => 0,
    hasSwap: () => false,
  };
}

/** One line of `ps` with {@link fields}; undefined for one that is none. */
export function parsePs(line: string): Stat | undefined {
  const match =
    /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\S+)\s+([\d:.-]+)\s+(\d+)\s+(\w{3}\s+\w{3}\s+\d+\s+[\d:]+\s+\d{4})\s+(.*)$/.exec(
      line,
    );
  if (!match) return undefined;
  const [, pid, ppid, pgrp, session, state, time, rss, started, comm] = match as unknown as string[];
  const startedAt = Date.parse(`${started} UTC`);
  if (!Number.isFinite(startedAt)) return undefined;
  return {
    pid: Number(pid),
    comm: comm!.trim(),
    state: state![0]!,
    ppid: Number(ppid),
    pgrp: Number(pgrp),
    session: Number(session) || 0, // macOS prints an address
    cpuTicks: parseCpuTime(time!),
    threads: 1,
    startTicks: Math.round(startedAt / 10),
    rssBytes: Number(rss) * 1024,
  };
}

/** "[[days-]hours:]minutes:seconds[.hundredths]" in ticks of 10 ms. */
export function parseCpuTime(text: string): number {
  const [days, clock] = text.includes("-") ? (text.split("-") as [string, string]) : ["0", text];
  const seconds = clock.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  return Math.round((Number(days) * 86_400 + seconds) * 100);
}

/** `lsof -F pn`: "p<pid>" and then "n<local>[-><remote>]" for each of its sockets. */
export function parseLsof(text: string): (Listener & { pid: number })[] {
  const found: (Listener & { pid: number })[] = [];
  let pid = 0;
  for (const line of text.split("\n")) {
    if (line[0] === "p") pid = Number(line.slice(1));
    if (line[0] !== "n") continue;
    const [, host, port] = /^(.*):(\d+)$/.exec(line.slice(1).split("->")[0]!) ?? [];
    if (!host || !port) continue;
    // "*" is all addresses of either family.
    const address = host === "*" ? "0.0.0.0" : host.replace(/^\[|\]$/g, "");
    found.push({ pid, address, port: Number(port) });
  }
  return found;
}
