/**
 * A directory as the canonical tar that a release is: entries sorted by name, modes kept to what matters (0755 or 0644),
 * no times, no owners. The same files give the same bytes on every machine, and so the same digest.
 */
import { createReadStream } from "node:fs";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join, posix, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { pack as tarPack } from "tar-stream";

/** Left out wherever they stand: version control, editors' and systems' litter, secrets for development, our own state. */
export const leftOut: ReadonlySet<string> = new Set([
  ".git",
  ".hg",
  ".svn",
  ".DS_Store",
  ".env",
  ".env.local",
  ".warren",
]);

/** The directory cannot be packed; the message names what and why. */
export class PackError extends Error {
  override readonly name = "PackError";
}

export interface PackOptions {
  /** Most entries. Default 100,000. */
  readonly maxEntries?: number;
  /** Most bytes of all files. Default 512 MiB. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  /** Told now and then. */
  readonly onProgress?: (progress: { entries: number; bytes: number }) => void;
}

/** Files up to this size are read whole: a stream for each of thousands of small ones costs more than the reading. */
const wholeBytes = 1024 * 1024;

/** About so many bytes are yielded at once. */
const pieceBytes = 256 * 1024;

type Entry =
  | {
      readonly kind: "file";
      readonly name: string;
      readonly path: string;
      readonly size: number;
      readonly mode: number;
    }
  | { readonly kind: "directory"; readonly name: string }
  | { readonly kind: "link"; readonly name: string; readonly target: string };

/**
 * The bytes of the tar.
 * @throws PackError when the directory is none, holds a link that leaves it, or is over a bound
 */
export async function* pack(directory: string, options: PackOptions = {}): AsyncGenerator<Uint8Array> {
  const entries = await list(directory, options);
  const tar = tarPack();
  let bytes = 0;
  const fill = async () => {
    for (const [i, entry] of entries.entries()) {
      options.signal?.throwIfAborted();
      // tar-stream writes uid, gid and names of owners as zero and empty unless told.
      const header = { name: entry.name, mtime: new Date(0), uid: 0, gid: 0 };
      if (entry.kind === "file" && entry.size > wholeBytes) {
        await pipeline(
          createReadStream(entry.path),
          tar.entry({ ...header, size: entry.size, mode: entry.mode, type: "file" }),
        );
      } else if (entry.kind === "file") {
        const content = await readFile(entry.path);
        if (content.byteLength !== entry.size)
          throw new PackError(`${entry.name} changed while it was packed: try again`);
        await written((done) =>
          tar.entry({ ...header, size: entry.size, mode: entry.mode, type: "file" }, content, done),
        );
      } else if (entry.kind === "directory") {
        await written((done) => tar.entry({ ...header, type: "directory", mode: 0o755 }, done));
      } else {
        await written((done) =>
          tar.entry({ ...header, type: "symlink", linkname: entry.target, mode: 0o777 }, done),
        );
      }
      bytes += entry.kind === "file" ? entry.size : 0;
      if (i % 500 === 499) options.onProgress?.({ entries: i + 1, bytes });
    }
    tar.finalize();
  };
  const filling = fill().catch((error: Error) => {
    tar.destroy(changed(error));
  });
  yield* pieces(tar as AsyncIterable<Uint8Array>);
  await filling;
  options.onProgress?.({ entries: entries.length, bytes });
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

function changed(error: Error): Error {
  return /size mismatch|Writing (?:too|more)/i.test(error.message)
    ? new PackError("a file changed while it was packed: try again")
    : error;
}

async function list(root: string, options: PackOptions): Promise<Entry[]> {
  const { maxEntries = 100_000, maxBytes = 512 * 1024 * 1024 } = options;
  const top = await lstat(root).catch((error: NodeJS.ErrnoException) => {
    throw new PackError(
      error.code === "ENOENT" ? `${root} does not exist` : `${root} cannot be read: ${error.message}`,
    );
  });
  if (!top.isDirectory()) throw new PackError(`${root} is not a directory`);
  const entries: Entry[] = [];
  let bytes = 0;
  const visit = async (directory: string): Promise<void> => {
    options.signal?.throwIfAborted();
    for (const found of (await readdir(directory, { withFileTypes: true })).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      if (leftOut.has(found.name)) continue;
      const path = join(directory, found.name);
      const name = relative(root, path).split(sep).join("/");
      if (entries.length >= maxEntries)
        throw new PackError(`${root} has more than ${maxEntries} files and directories`);
      if (found.isDirectory()) {
        entries.push({ kind: "directory", name: `${name}/` });
        await visit(path);
      } else if (found.isSymbolicLink()) {
        const target = await readlink(path);
        const leads = posix.normalize(posix.join(posix.dirname(name), target));
        if (posix.isAbsolute(target) || leads === ".." || leads.startsWith("../")) {
          throw new PackError(
            `${name} is a link to ${target}, which is outside of ${root}: copy what it needs into the directory (bun install --linker hoisted, or --backend copyfile, for node_modules)`,
          );
        }
        entries.push({ kind: "link", name, target });
      } else if (found.isFile()) {
        const { size, mode } = await lstat(path);
        bytes += size;
        if (bytes > maxBytes)
          throw new PackError(`${root} is over ${maxBytes} bytes: leave out what the app does not need`);
        entries.push({ kind: "file", name, path, size, mode: mode & 0o111 ? 0o755 : 0o644 });
      }
      // Sockets, pipes and devices are nobody's release.
    }
  };
  await visit(root);
  // By the whole name, so that the order does not depend on how directories were walked.
  return entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
