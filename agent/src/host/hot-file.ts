/** A file of the kernel's that is read again and again: kept open it costs 2 µs a reading, opened each time 10. */
import { closeSync, openSync, readSync } from "node:fs";

/** Readings are made one at a time and taken as text at once, so that all files share it. */
const shared = Buffer.alloc(64 * 1024);

export class HotFile {
  #fd: number | undefined;

  constructor(private readonly path: string) {}

  /** Undefined when it is not there (any more). At most 64 KiB of it. */
  read(): string | undefined {
    try {
      this.#fd ??= openSync(this.path, "r");
      let length = 0;
      // The kernel hands out a page at a time.
      for (let n = -1; n !== 0 && length < shared.length; length += n) {
        n = readSync(this.#fd, shared, length, shared.length - length, length);
      }
      return shared.toString("latin1", 0, length);
    } catch {
      this.close();
      return undefined;
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
