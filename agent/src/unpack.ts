/**
 * Unpacks a release's tar where nothing in it can reach outside: no absolute path, no "..", no entry through a link, no
 * link that leads out, no device; at most so many bytes and entries.
 */
import {
  chmodSync,
  createReadStream,
  linkSync,
  mkdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join, posix, sep } from "node:path";
import { extract } from "tar-stream";
import { errnoOf, isMissing } from "./files.ts";

export interface UnpackBounds {
  /** Of all files together. */
  readonly bytes: number;
  readonly entries: number;
}

/** Files up to this size are written at once: thousands of small ones are what a release mostly is. */
const wholeBytes = 1024 * 1024;

/** A release that is not one; the message names the entry. */
export class UnpackError extends Error {
  override readonly name = "UnpackError";
}

/** How files come out: read-only as a release is, or with their modes and with links that lead anywhere, as a volume was. */
export type UnpackAs = "a release" | "it was";

/**
 * Unpacks into a directory that exists and is empty.
 * @returns bytes of all its files
 * @throws UnpackError
 */
export async function unpack(
  tar: string,
  root: string,
  bounds: UnpackBounds,
  signal: AbortSignal,
  as: UnpackAs = "a release",
): Promise<number> {
  const links: string[] = [];
  const linked = new Set<string>();
  const files = new Set<string>();
  const made = new Set<string>();
  const makeDirectory = (path: string): void => {
    if (made.has(path)) return;
    const first = mkdirSync(path, { recursive: true });
    // Whatever the umask is: other users read releases.
    for (let at = path; first !== undefined; at = dirname(at)) {
      chmodSync(at, 0o755);
      made.add(at);
      if (at === first) break;
    }
    made.add(path);
  };
  let bytes = 0;
  let entries = 0;
  const source = createReadStream(tar, { signal, highWaterMark: wholeBytes });
  const reader = extract();
  source.on("error", (error) => reader.destroy(error));
  source.pipe(reader);
  for await (const entry of reader) {
    const { header } = entry;
    const name = safeName(header.name);
    if (++entries > bounds.entries) throw new UnpackError(`it has more than ${bounds.entries} entries`);
    bytes += header.size ?? 0;
    if (bytes > bounds.bytes) throw new UnpackError(`unpacked it is more than ${bounds.bytes} bytes`);
    const through = parents(name).find((parent) => linked.has(parent));
    if (through) throw new UnpackError(`${header.name} goes through the link ${through}`);
    const path = join(root, name);
    try {
      switch (header.type) {
        case "directory":
          makeDirectory(path);
          break;
        case "file":
        case "contiguous-file": {
          makeDirectory(dirname(path));
          // "wx": never over what is there, never through a link.
          if ((header.size ?? 0) <= wholeBytes) {
            const chunks: Uint8Array[] = [];
            for await (const chunk of entry) chunks.push(chunk as Uint8Array);
            writeFileSync(path, Buffer.concat(chunks), { flag: "wx", mode: 0o600 });
          } else {
            const file = await open(path, "wx", 0o600);
            try {
              for await (const chunk of entry) await file.writeFile(chunk as Uint8Array);
            } finally {
              await file.close();
            }
          }
          // Read-only, as a release is immutable; executable where it was.
          if (as === "it was") chmodSync(path, 0o600 | ((header.mode ?? 0) & 0o777));
          else chmodSync(path, header.mode && header.mode & 0o100 ? 0o555 : 0o444);
          files.add(name);
          break;
        }
        case "symlink": {
          const target = header.linkname ?? "";
          if (as === "a release") safeName(posix.join(posix.dirname(name), target), target);
          makeDirectory(dirname(path));
          symlinkSync(target, path);
          links.push(path);
          linked.add(name);
          break;
        }
        case "link": {
          const target = safeName(header.linkname ?? "");
          if (!files.has(target))
            throw new UnpackError(`${name} is a link to ${target}, which is no file before it`);
          makeDirectory(dirname(path));
          linkSync(join(root, target), path);
          files.add(name);
          break;
        }
        default:
          throw new UnpackError(
            `${name} is a ${header.type}: a release holds files, directories and links only`,
          );
      }
    } catch (error) {
      if (errnoOf(error) === "EEXIST") throw new UnpackError(`${name} is there twice`);
      throw error;
    }
    entry.resume();
  }
  if (as === "it was") return bytes; // nothing was written through a link: only the tenant follows it
  // By its text each link stays inside; through other links it may still not.
  const real = realpathSync(root);
  for (const link of links) {
    try {
      const to = realpathSync(link);
      if (to !== real && !to.startsWith(real + sep))
        throw new UnpackError(`the link ${link} leads out of the release`);
    } catch (error) {
      // A link that leads to nothing leads nowhere outside: by its text it is inside.
      if (!isMissing(error) && errnoOf(error) !== "ELOOP") throw error;
    }
  }
  return bytes;
}

/**
 * The name, normalised, if it stays inside.
 * @throws UnpackError
 */
function safeName(name: string, shown = name): string {
  if (name === "" || name.includes("\0") || name.length > 1024)
    throw new UnpackError(`bad name ${JSON.stringify(shown)}`);
  if (posix.isAbsolute(name) || posix.isAbsolute(shown))
    throw new UnpackError(`${shown} is an absolute path`);
  const normal = posix.normalize(name).replace(/\/$/, "");
  if (normal === ".." || normal.startsWith("../")) throw new UnpackError(`${shown} leads out of the release`);
  return normal;
}

function parents(name: string): string[] {
  const parts = name.split("/");
  return parts.slice(0, -1).map((_, i) => parts.slice(0, i + 1).join("/"));
}
