import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BlobNotFoundError, StoreInputError } from "../errors.ts";
import { syncDirectory } from "../files.ts";
import { checkBlobName } from "../limits.ts";
import type { Blobs } from "../store.ts";

const PARTIAL = ".partial-";

/** Blobs as files. One appears under its name by a rename, when all of it is on the disk. */
export class EmbeddedBlobs implements Blobs {
  private constructor(
    readonly directory: string,
    readonly maxBytes: number,
  ) {}

  /** The caller holds the directory's lock, so partial files are what an earlier process left behind. */
  static async open(directory: string, maxBytes: number): Promise<EmbeddedBlobs> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory)) {
      if (name.startsWith(PARTIAL)) await rm(join(directory, name), { force: true });
    }
    return new EmbeddedBlobs(directory, maxBytes);
  }

  async put(name: string, bytes: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
    checkBlobName(name);
    signal?.throwIfAborted();
    if (await this.has(name)) return;
    const partial = join(this.directory, `${PARTIAL}${crypto.randomUUID()}`);
    try {
      await this.#write(partial, name, bytes, signal);
      await rename(partial, join(this.directory, name));
      syncDirectory(this.directory);
    } catch (error) {
      await rm(partial, { force: true });
      throw error;
    }
  }

  async *get(name: string, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    checkBlobName(name);
    try {
      yield* createReadStream(join(this.directory, name), { highWaterMark: 256 * 1024, signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw isMissing(error) ? new BlobNotFoundError(`there is no blob ${name}`) : error;
    }
  }

  async has(name: string): Promise<boolean> {
    checkBlobName(name);
    try {
      return (await stat(join(this.directory, name))).isFile();
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  async delete(name: string): Promise<void> {
    checkBlobName(name);
    await rm(join(this.directory, name), { force: true });
  }

  async list(): Promise<readonly { name: string; size: number }[]> {
    const found: { name: string; size: number }[] = [];
    for (const name of await readdir(this.directory)) {
      if (name.startsWith(".")) continue;
      try {
        found.push({ name, size: (await stat(join(this.directory, name))).size });
      } catch (error) {
        if (!isMissing(error)) throw error; // deleted since the directory was read
      }
    }
    return found;
  }

  async #write(
    path: string,
    name: string,
    bytes: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    const file = await open(path, "wx", 0o600);
    try {
      let size = 0;
      for await (const chunk of bytes) {
        signal?.throwIfAborted();
        size += chunk.byteLength;
        if (size > this.maxBytes) throw new StoreInputError(`blob ${name} is over ${this.maxBytes} bytes`);
        let written = 0;
        while (written < chunk.byteLength) {
          written += (await file.write(chunk, written)).bytesWritten;
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}
