/**
 * A directory as the canonical tar that a release is: entries sorted by name, modes kept to what matters (0755 or 0644),
 * no times, no owners. The same files give the same bytes on every machine, and so the same digest.
 */
import { pipeline } from "node:stream/promises";
import { type Pack, pack as tarPack } from "tar-stream";
import { OpenFile } from "./pack/files.ts";
import { type Entry, type Listing, list, tooBig, type WalkOptions } from "./pack/walk.ts";

export { PackError } from "./pack/error.ts";
export type { Listing } from "./pack/walk.ts";

export interface PackOptions extends WalkOptions {
  /** Told once it is known what goes and what stays. */
  readonly onListed?: (listing: Listing) => void;
  /** Told now and then. */
  readonly onProgress?: (progress: { entries: number; bytes: number }) => void;
}

/** Files up to this size are read whole: a stream for each of thousands of small ones costs more than the reading. */
const wholeBytes = 1024 * 1024;

/** Others have their turn after so many files. */
const turn = 64;

/** About so many bytes are yielded at once. */
const pieceBytes = 256 * 1024;

/**
 * The bytes of the tar.
 * @throws PackError when the directory is none, holds a link that leaves it, is over a bound, or changes meanwhile
 */
export async function* pack(directory: string, options: PackOptions = {}): AsyncGenerator<Uint8Array> {
  const listing = await list(directory, options);
  options.onListed?.(listing);
  const { entries, sizes, maxBytes } = listing;
  const tar = tarPack();
  let bytes = 0;
  const fill = async () => {
    for (const [i, entry] of entries.entries()) {
      options.signal?.throwIfAborted();
      bytes += await write(tar, entry, options.signal);
      if (i % turn === turn - 1) await new Promise(setImmediate);
      // It may have grown since it was listed.
      if (bytes > maxBytes) throw tooBig(directory, sizes, maxBytes);
      if (i % 500 === 499) options.onProgress?.({ entries: i + 1, bytes });
    }
    tar.finalize();
  };
  const filling = fill().catch((error: Error) => {
    tar.destroy(error);
  });
  yield* pieces(tar as AsyncIterable<Uint8Array>);
  await filling;
  options.onProgress?.({ entries: entries.length, bytes });
}

/** @returns bytes of its content */
async function write(tar: Pack, entry: Entry, signal: AbortSignal | undefined): Promise<number> {
  // tar-stream writes uid, gid and names of owners as zero and empty unless told.
  const header = { name: entry.name, mtime: new Date(0), uid: 0, gid: 0 };
  if (entry.kind === "directory") {
    await written((done) => tar.entry({ ...header, type: "directory", mode: 0o755 }, done));
    return 0;
  }
  if (entry.kind === "link") {
    await written((done) =>
      tar.entry({ ...header, type: "symlink", linkname: entry.target, mode: 0o777 }, done),
    );
    return 0;
  }
  using file = OpenFile.open(entry.name, entry.path);
  const { size, mode } = file;
  if (size > wholeBytes) {
    await pipeline(file.pieces(), tar.entry({ ...header, size, mode, type: "file" }), { signal });
  } else {
    const content = file.whole();
    await written((done) => tar.entry({ ...header, size, mode, type: "file" }, content, done));
  }
  return size;
}

/** A tar comes in thousands of small parts; each piece becomes a message, so they are joined. */
async function* pieces(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let waiting: Uint8Array[] = [];
  let size = 0;
  for await (const part of parts) {
    waiting.push(part);
    size += part.byteLength;
    if (size < pieceBytes) continue;
    yield Buffer.concat(waiting);
    waiting = [];
    size = 0;
  }
  if (size) yield Buffer.concat(waiting);
}

function written(write: (done: (error?: Error | null) => void) => unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    write((error) => (error ? reject(error) : resolve()));
  });
}
