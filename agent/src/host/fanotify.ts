/**
 * Is asked by the kernel before anybody opens certain files, who waits for the answer. Asked for without waiting every few
 * ms, as the ends of processes are. The process that watches a file must not open it: it would wait for itself.
 * When this process ends the kernel lets everybody through.
 */
import { ptr } from "bun:ffi";
import { closeSync, readlinkSync, realpathSync } from "node:fs";
import { openLibc } from "./libc.ts";

const libc =
  process.platform === "linux"
    ? openLibc({
        fanotify_init: { args: ["u32", "u32"], returns: "i32" },
        fanotify_mark: { args: ["i32", "u32", "u64", "i32", "ptr"], returns: "i32" },
        read: { args: ["i32", "ptr", "u64"], returns: "i64" },
        write: { args: ["i32", "ptr", "u64"], returns: "i64" },
      })
    : undefined;

/** FAN_CLASS_CONTENT (before the open), FAN_CLOEXEC, FAN_NONBLOCK. */
const groupFlags = 0x4 | 0x1 | 0x2;
const readOnlyCloexec = 0o2000000;
const markAdd = 1;
const openPermission = 0x10000n;
const atCurrentDirectory = -100;
const allow = 1;
/** `struct fanotify_event_metadata`: its length, and where mask, descriptor and pid are in it. */
const eventBytes = 24;
const descriptorOffset = 16;
const pidOffset = 20;
const askEveryMs = 10;

/** @param pid of who opens it */
export type BeforeOpen = (pid: number) => void;

export class OpenWatcher implements Disposable {
  readonly #handlers = new Map<string, BeforeOpen>();
  readonly #events = Buffer.alloc(eventBytes * 64);
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(private readonly group: number) {}

  /** Undefined where this process may not, or the kernel cannot. */
  static open(): OpenWatcher | undefined {
    const group = libc?.fanotify_init(groupFlags, readOnlyCloexec) ?? -1;
    return group < 0 ? undefined : new OpenWatcher(group);
  }

  /**
   * From now on a process that opens the file waits until `before` has returned. Ends when the file is gone.
   * @returns the file's real path, by which it is known from now on; undefined when it cannot be watched
   * @throws Error of the file system when it is not there
   */
  watch(file: string, before: BeforeOpen): string | undefined {
    const path = realpathSync(file);
    const name = Buffer.from(`${path}\0`);
    if (libc!.fanotify_mark(this.group, markAdd, openPermission, atCurrentDirectory, ptr(name)) !== 0)
      return undefined;
    this.#handlers.set(path, before);
    this.#timer ??= setInterval(() => this.#ask(), askEveryMs);
    this.#timer.unref();
    return path;
  }

  /** No handler is left. While the file exists, processes that open it are still reported, and let through at once. */
  forget(path: string): void {
    this.#handlers.delete(path);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#handlers.clear();
    closeSync(this.group);
  }

  #ask(): void {
    const bytes = Number(libc!.read(this.group, this.#events, this.#events.length));
    for (let at = 0; at + eventBytes <= bytes; at += Math.max(eventBytes, this.#events.readUInt32LE(at))) {
      const file = this.#events.readInt32LE(at + descriptorOffset);
      if (file < 0) continue; // the queue was full: the kernel has let it through
      try {
        this.#handlers.get(readlinkSync(`/proc/self/fd/${file}`))?.(this.#events.readInt32LE(at + pidOffset));
      } catch {
        // Whatever cannot be done now must not keep the one who opens it.
      } finally {
        this.#allow(file);
      }
    }
  }

  #allow(file: number): void {
    const answer = Buffer.alloc(8);
    answer.writeInt32LE(file, 0);
    answer.writeUInt32LE(allow, 4);
    libc!.write(this.group, answer, answer.length);
    closeSync(file);
  }
}
