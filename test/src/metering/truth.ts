/**
 * What instances really use, as the kernel tells it: looked at a few times a second, without asking any part of Warren.
 * A life is known from the file that the tenant leaves as its first act until its process is gone.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { pause } from "@warren/common/time";

export interface Used {
  readonly cpuUs: number;
  readonly byteSeconds: number;
  readonly wallMs: number;
  readonly frozenMs: number;
}

export const usedNames = ["cpuUs", "byteSeconds", "wallMs", "frozenMs"] as const;

const nothing: Used = { cpuUs: 0, byteSeconds: 0, wallMs: 0, frozenMs: 0 };

/** Between two looks. */
const everyMs = 200;
/** So much of the past is kept of each life. */
const keptMs = 30_000;
const ticksPerSecond = 100;

interface Sample extends Used {
  /** Monotonic ms. */
  readonly at: number;
}

export class Life {
  /** Newest last; of one that has ended, those before its end. */
  readonly samples: Sample[] = [];
  endedAt: number | undefined;
  /** The longest between two looks, ms: a machine that keeps us waiting keeps agents waiting as well. */
  longestGapMs = 0;
  /**
   * Memory-seconds that nobody could know of: while its agent was dead, what memory there was between the most and the
   * least. The kernel sums up CPU and time by itself, but no memory.
   */
  unseenByteSeconds = 0;
  #unwatched: { since: number; least: number; most: number } | undefined;
  #memory = 0;
  #files: OpenFiles;
  readonly #startTicks: string;

  constructor(
    readonly instance: string,
    readonly tenant: string,
    readonly pid: number,
  ) {
    this.#startTicks = startTicksOf(pid) ?? "";
    this.#files = new OpenFiles(pid);
  }

  /** Looks once more; notes the end. @param watched whether all agents are there to look, too */
  look(at: number, watched = true): void {
    if (this.endedAt !== undefined) return;
    const read = startTicksOf(this.pid) === this.#startTicks ? this.#files.read() : undefined;
    const last = this.samples.at(-1);
    if (!read) {
      this.endedAt = at;
      this.#files.close();
      return;
    }
    // It may have been seen before it was moved into the group that counts its memory.
    if (!this.#files.isWhole && this.samples.length < 10) {
      this.#files.close();
      this.#files = new OpenFiles(this.pid);
    }
    if (last) this.longestGapMs = Math.max(this.longestGapMs, at - last.at);
    const bornMs = uptimeMs() - (Number(this.#startTicks) * 1000) / ticksPerSecond;
    const passed = last ? at - last.at : bornMs;
    const memory = last ? (this.#memory + read.memoryBytes) / 2 : read.memoryBytes / 2;
    this.#memory = read.memoryBytes;
    this.#noteAbsence(at, watched);
    this.samples.push({
      at,
      cpuUs: Math.max(read.cpuUs, last?.cpuUs ?? 0),
      byteSeconds: (last?.byteSeconds ?? 0) + (memory * passed) / 1000,
      wallMs: bornMs,
      frozenMs: (last?.frozenMs ?? 0) + (read.frozen && last ? passed : 0),
    });
    while (this.samples.length > 2 && this.samples[1]!.at < at - keptMs) this.samples.shift();
  }

  #noteAbsence(at: number, watched: boolean): void {
    const absence = this.#unwatched;
    if (!watched) {
      this.#unwatched = {
        since: absence?.since ?? at,
        least: Math.min(absence?.least ?? this.#memory, this.#memory),
        most: Math.max(absence?.most ?? this.#memory, this.#memory),
      };
    } else if (absence) {
      this.unseenByteSeconds += ((absence.most - absence.least) * (at - absence.since)) / 1000;
      this.#unwatched = undefined;
    }
  }

  /** As it was at that moment; before the first look nothing is known. */
  at(moment: number): Used {
    return this.samples.findLast(({ at }) => at <= moment) ?? nothing;
  }

  get last(): Used {
    return this.samples.at(-1) ?? nothing;
  }
}

export class Truth implements AsyncDisposable {
  readonly lives = new Map<string, Life>();
  /** Whether all agents are there to look, too. */
  watched = true;
  readonly #stopped = new AbortController();
  readonly #running: Promise<void>;

  /** @param directory where tenants leave their pids */
  constructor(private readonly directory: string) {
    this.#running = this.#watch();
  }

  /** Looks now. */
  look(): void {
    for (const instance of readdirSync(this.directory)) {
      if (this.lives.has(instance) || instance.endsWith(".new")) continue;
      const [pid, tenant] = readFileSync(join(this.directory, instance), "utf8").split(" ");
      this.lives.set(instance, new Life(instance, tenant ?? "", Number(pid)));
    }
    for (const life of this.lives.values()) life.look(performance.now(), this.watched);
  }

  /** Whoever still lives is killed: nobody else will, should the fleet have failed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await this.#running;
    this.look();
    for (const { endedAt, pid } of this.lives.values())
      if (endedAt === undefined) process.kill(pid, "SIGKILL");
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopped;
    for (; !signal.aborted; await pause(everyMs, signal)) this.look();
  }
}

/** The kernel's files about one instance, kept open: its group's where it has one. */
class OpenFiles {
  readonly #cpu: number | undefined;
  readonly #memory: number | undefined;
  readonly #events: number | undefined;
  readonly #buffer = Buffer.alloc(4096);

  constructor(private readonly pid: number) {
    const groups = existsSync(`/proc/${pid}/cgroup`) ? groupsOf(pid) : {};
    this.#cpu = open(groups.unified && join(groups.unified, "cpu.stat"));
    this.#events = open(groups.unified && join(groups.unified, "cgroup.events"));
    this.#memory =
      open(groups.memory && join(groups.memory, "memory.usage_in_bytes")) ??
      open(groups.unified && join(groups.unified, "memory.current"));
  }

  /** Its memory is counted by a group of its own. */
  get isWhole(): boolean {
    return this.#memory !== undefined;
  }

  read(): { cpuUs: number; memoryBytes: number; frozen: boolean } | undefined {
    try {
      const cpuUs =
        this.#cpu === undefined
          ? ticksOf(this.pid)
          : Number(/usage_usec (\d+)/.exec(this.#text(this.#cpu))?.[1]);
      const memoryBytes = this.#memory === undefined ? pssOf(this.pid) : Number(this.#text(this.#memory));
      const frozen = this.#events !== undefined && /frozen 1/.test(this.#text(this.#events));
      return { cpuUs, memoryBytes, frozen };
    } catch {
      return undefined; // it is going
    }
  }

  close(): void {
    for (const fd of [this.#cpu, this.#memory, this.#events]) if (fd !== undefined) closeSync(fd);
  }

  #text(fd: number): string {
    return this.#buffer.toString("latin1", 0, readSync(fd, this.#buffer, 0, this.#buffer.length, 0));
  }
}

function open(path: string | undefined): number | undefined {
  try {
    return path === undefined ? undefined : openSync(path, "r");
  } catch {
    return undefined;
  }
}

/** Its groups, unless they are those of the whole agent. */
function groupsOf(pid: number): { unified?: string; memory?: string } {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").split("\n");
  const own = readFileSync("/proc/self/cgroup", "utf8").split("\n");
  const place = (prefix: RegExp, root: string) => {
    const line = lines.find((text) => prefix.test(text));
    return line === undefined || own.includes(line) ? undefined : join(root, line.replace(prefix, ""));
  };
  const hybrid = readdirSync("/sys/fs/cgroup").includes("unified");
  return {
    unified: place(/^0::/, hybrid ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup"),
    memory: place(/^\d+:memory:/, "/sys/fs/cgroup/memory"),
  };
}

function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** Field 22; nothing of a zombie. */
function startTicksOf(pid: number): string | undefined {
  const stat = statOf(pid);
  return stat && stat[0] !== "Z" && stat[0] !== "X" ? stat[19] : undefined;
}

function ticksOf(pid: number): number {
  const stat = statOf(pid)!;
  return ((Number(stat[11]) + Number(stat[12])) * 1_000_000) / ticksPerSecond;
}

function pssOf(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "latin1"))?.[1]) * 1024;
}

function uptimeMs(): number {
  return Number(readFileSync("/proc/uptime", "latin1").split(" ")[0]) * 1000;
}
