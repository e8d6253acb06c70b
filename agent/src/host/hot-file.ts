/** A file of the kernel's that is read again and again: kept open it costs 2 µs a reading, opened each time 10. */
import { closeSync, openSync, readSync } from "node:fs";
import { isMissing } from "../files.ts";

/** Longest text that is read: the pids of 500,000 processes. */
const mostBytes = 4 * 1024 * 1024;

/** Readings are made one at a time and taken as text at once, so that all files share it. It grows, up to the bound. */
let shared = Buffer.alloc(64 * 1024);

export class HotFile {
  #fd: number | undefined;

  constructor(private readonly path: string) {}

  /**
   * Undefined when it is not there (any more). At most 4 MiB of it, cut after a whole line: half a pid is a stranger's.
   * @throws Error of the file system (EMFILE, ENFILE, ENOMEM …) where it is not known whether it is there
   */
  read(): string | undefined {
    try {
      this.#fd ??= openSync(this.path, "r");
      let length = 0;
      // The kernel hands out a page at a time.
      for (let n = -1; n !== 0 && length < mostBytes; length += n) {
        if (length === shared.length) shared = Buffer.concat([shared], shared.length * 2);
        n = readSync(this.#fd, shared, length, shared.length - length, length);
      }
      const text = shared.toString("latin1", 0, length);
      return length < mostBytes ? text : text.slice(0, text.lastIndexOf("\n") + 1);
    } catch (error) {
      this.close();
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
