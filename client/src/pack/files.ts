/** A file's content, exactly as long as its header says, whatever others do to it meanwhile. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { changed, unreadable } from "./error.ts";

/** Neither a link nor a pipe that came in a file's place is followed or waited for. */
const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const pieceBytes = 256 * 1024;

/** A file as it was when it was opened: what is appended later is not part of it. */
export class OpenFile implements AsyncDisposable {
  private constructor(
    private readonly name: string,
    private readonly handle: FileHandle,
    readonly size: number,
    /** 0755 or 0644. */
    readonly mode: number,
  ) {}

  /** @throws PackError when it is gone, or is no file any more */
  static async open(name: string, path: string): Promise<OpenFile> {
    const handle = await open(path, flags).catch((error: unknown) => {
      throw unreadable(name, error);
    });
    try {
      const found = await handle.stat();
      if (!found.isFile()) throw changed(name, "became something else than a file");
      return new OpenFile(name, handle, found.size, found.mode & 0o111 ? 0o755 : 0o644);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** All of it, for small ones. @throws PackError when it has shrunk */
  async whole(): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(this.size);
    if ((await this.#fill(bytes, 0)) < this.size) throw changed(this.name, "became shorter");
    return bytes;
  }

  /** Piece by piece. @throws PackError when it has shrunk */
  async *pieces(signal?: AbortSignal): AsyncGenerator<Buffer> {
    for (let at = 0; at < this.size; ) {
      signal?.throwIfAborted();
      const bytes = Buffer.allocUnsafe(Math.min(pieceBytes, this.size - at));
      if ((await this.#fill(bytes, at)) < bytes.length) throw changed(this.name, "became shorter");
      at += bytes.length;
      yield bytes;
    }
  }

  async #fill(bytes: Buffer, offset: number): Promise<number> {
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await this.handle
        .read(bytes, filled, bytes.length - filled, offset + filled)
        .catch((error: unknown) => {
          throw unreadable(this.name, error);
        });
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.handle.close();
  }
}
