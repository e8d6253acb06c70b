/**
 * Notices the end of processes that are not our children: those adopted from an agent that died. A pidfd of each
 * stands in one epoll set, asked without waiting every few ms (0.2 µs however many there are), so that no Worker thread
 * is needed. Where that cannot be had, each one's stat is read. What cannot be read now is not known, and asked again:
 * never taken for an end.
 */
import { ptr } from "bun:ffi";
import { isSameAndAlive, type Kernel } from "./kernel.ts";
import { openLibc } from "./libc.ts";

const askEveryMs = 5;
const readEveryMs = 100;

/** A process by its name for ever. */
export interface ProcessName {
  readonly pid: number;
  readonly startTicks: number;
}

interface Watched {
  readonly name: ProcessName;
  readonly exited: () => void;
  readonly pidfd: number | undefined;
  /** Whether its pidfd is seen to be this process's: between its record and the pidfd the pid may have become another's. */
  sure: boolean;
}

export class ExitWatcher implements Disposable {
  readonly #epoll = openEpoll();
  readonly #watched = new Map<number, Watched>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #lastRead = 0;

  constructor(private readonly kernel: Kernel) {}

  /** Calls back once, soon after the process ended; at the next turn if it has already. */
  watch(name: ProcessName, exited: () => void): void {
    const pidfd = this.#epoll?.add(name.pid);
    const entry = { name, exited, pidfd, sure: false };
    this.#watched.set(name.pid, entry);
    queueMicrotask(() => this.#look(entry));
    this.#timer ??= setInterval(() => this.#ask(), askEveryMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const { pidfd } of this.#watched.values()) if (pidfd !== undefined) this.#epoll?.close(pidfd);
    this.#watched.clear();
    this.#epoll?.dispose();
  }

  #ask(): void {
    for (const pid of this.#epoll?.ended() ?? []) this.#ended(pid);
    const now = performance.now();
    if (now - this.#lastRead < readEveryMs) return;
    this.#lastRead = now;
    for (const entry of [...this.#watched.values()]) {
      if (entry.pidfd === undefined || !entry.sure) this.#look(entry);
    }
  }

  #look(entry: Watched): void {
    let isThere: boolean;
    try {
      isThere = isSameAndAlive(this.kernel, entry.name);
    } catch {
      return; // no descriptor or memory left: the next look tells
    }
    if (this.#watched.get(entry.name.pid) !== entry) return;
    if (isThere) entry.sure = true;
    else this.#ended(entry.name.pid);
  }

  #ended(pid: number): void {
    const entry = this.#watched.get(pid);
    if (!entry) return;
    this.#watched.delete(pid);
    if (entry.pidfd !== undefined) this.#epoll?.close(entry.pidfd);
    if (this.#watched.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    entry.exited();
  }
}

interface Epoll {
  add(pid: number): number | undefined;
  ended(): number[];
  close(fd: number): void;
  dispose(): void;
}

const sysPidfdOpen = 434; // the same number on every architecture
const epollCloexec = 0o2000000;
const epollCtlAdd = 1;
const epollIn = 1;
const eventsAtOnce = 64;
/** `struct epoll_event` is packed on x86-64 only. */
const eventBytes = process.arch === "x64" ? 12 : 16;
const dataOffset = eventBytes - 8;

function openEpoll(): Epoll | undefined {
  const libc = openLibc({
    syscall: { args: ["i64", "i64", "i64"], returns: "i64" },
    epoll_create1: { args: ["i32"], returns: "i32" },
    epoll_ctl: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
    epoll_wait: { args: ["i32", "ptr", "i32", "i32"], returns: "i32" },
    close: { args: ["i32"], returns: "i32" },
  });
  if (!libc) return undefined;
  const set = libc.epoll_create1(epollCloexec);
  if (set < 0) return undefined;
  const events = new DataView(new ArrayBuffer(eventBytes * eventsAtOnce));
  return {
    add(pid) {
      const fd = Number(libc.syscall(sysPidfdOpen, pid, 0));
      if (fd < 0) return undefined;
      const event = new DataView(new ArrayBuffer(eventBytes));
      event.setUint32(0, epollIn, true);
      event.setBigUint64(dataOffset, BigInt(pid), true);
      if (libc.epoll_ctl(set, epollCtlAdd, fd, ptr(event.buffer as ArrayBuffer)) === 0) return fd;
      libc.close(fd);
      return undefined;
    },
    ended() {
      const count = libc.epoll_wait(set, ptr(events.buffer as ArrayBuffer), eventsAtOnce, 0);
      const pids: number[] = [];
      for (let i = 0; i < count; i++)
        pids.push(Number(events.getBigUint64(i * eventBytes + dataOffset, true)));
      return pids;
    },
    close(fd) {
      libc.close(fd);
    },
    dispose() {
      libc.close(set);
    },
  };
}
