/** Tells which quiet files are written to again, by one call for all of them: inotify. */
import { closeSync } from "node:fs";
import { openLibc } from "../host/libc.ts";

const libc =
  process.platform === "linux"
    ? openLibc({
        inotify_init1: { args: ["i32"], returns: "i32" },
        inotify_add_watch: { args: ["i32", "ptr", "u32"], returns: "i32" },
        read: { args: ["i32", "ptr", "u64"], returns: "i64" },
      })
    : undefined;

const nonBlockAndCloseOnExec = 0o4000 | 0o2000000;
/** One event, and the watch is over: a flood costs nothing here. */
const modifiedOnce = 0x2 | 0x80000000;
/** An event of a watched file has no name: id, mask, cookie and the name's length 0, 4 bytes each. */
const eventBytes = 16;

export class Stirrings implements Disposable {
  readonly #events = Buffer.alloc(eventBytes * 1024);

  private constructor(private readonly fd: number) {}

  /** Undefined where there is no inotify, or no more of it for this user. */
  static open(): Stirrings | undefined {
    const fd = libc?.inotify_init1(nonBlockAndCloseOnExec) ?? -1;
    return fd < 0 ? undefined : new Stirrings(fd);
  }

  /** @returns the id by which it is named once it is written to; undefined where it cannot be watched */
  watch(path: string): number | undefined {
    const id = libc!.inotify_add_watch(this.fd, Buffer.from(`${path}\0`), modifiedOnce);
    return id < 0 ? undefined : id;
  }

  /** Those that were written to, or removed, since it was last asked; some may be left for the next time. */
  poll(): number[] {
    const bytes = Number(libc!.read(this.fd, this.#events, this.#events.length));
    const ids: number[] = [];
    for (let at = 0; at < bytes; at += eventBytes) ids.push(this.#events.readInt32LE(at));
    return ids;
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}
