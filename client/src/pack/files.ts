/** A file's content, exactly as long as its header says, whatever others do to it meanwhile. */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { changed, unreadable } from "./error.ts";

/** Neither a link nor a pipe that came in a file's place is followed or waited for. */
const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const pieceBytes = 256 * 1024;

/**
 * A file as it was when it was opened: what is appended later is not part of it. Read without waiting: a release is
 * thousands of small files, for each of which four promises cost more than the reading.
 */
export class OpenFile implements Disposable {
  private constructor(
    private readonly name: string,
    private readonly fd: number,
    readonly size: number,
    /** 0755 or 0644. */
    readonly mode: number,
  ) {}

  /** @throws PackError when it is gone, or no longer a file */
  static open(name: string, path: string): OpenFile {
    const fd = orUnreadable(name, () => openSync(path, flags));
    try {
      const found = orUnreadable(name, () => fstatSync(fd));
      if (!found.isFile()) throw changed(name, "became something else than a file");
      return new OpenFile(name, fd, found.size, found.mode & 0o111 ? 0o755 : 0o644);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** All of it, for small ones. @throws PackError when it has shrunk */
  whole(): Buffer {
    return this.#read(0, this.size);
  }

  /** Piece by piece. @throws PackError when it has shrunk */
  *pieces(): Generator<Buffer> {
    for (let at = 0; at < this.size; at += pieceBytes) {
      yield this.#read(at, Math.min(pieceBytes, this.size - at));
    }
  }

  #read(offset: number, size: number): Buffer {
    const bytes = Buffer.allocUnsafe(size);
    for (let filled = 0; filled < size; ) {
      const n = orUnreadable(this.name, () =>
        readSync(this.fd, bytes, filled, size - filled, offset + filled),
      );
      if (n === 0) throw changed(this.name, "became shorter");
      filled += n;
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

function orUnreadable<T>(name: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw unreadable(name, error);
  }
}
