/** What a tenant's directory holds; the tenant may be writing to it, and may have filled it with anything. */
import { lstat, readdir } from "node:fs/promises";
import { errnoOf } from "./files.ts";

export interface DiskUse {
  /** Blocks that its files hold, in bytes: a sparse file counts what is written of it. */
  readonly bytes: number;
  readonly entries: number;
  /** Whether there is more than was looked at, or could be. */
  readonly isMore: boolean;
}

/** With more than these it is not looked at further: 20,000 cost 0.3 s of the file system's threads. */
export const mostEntries = 20_000;

/**
 * Bun lists a directory whole or not at all, in a thread of the pool: one whose own size is larger is not listed. 20,000
 * names of 255 bytes take at most this on ext4 and XFS, and one never shrinks there: it holds, or once held, too many.
 * What remains is a list of some 500,000 short names: 0.4 s of a thread, and 30 ms of the event loop.
 */
const mostDirectoryBytes = 8 * 1024 * 1024;

/** It is gone, or never was: nothing to count. */
const gone = new Set(["ENOENT", "ENOTDIR"]);
/** The agent's own want, which no tenant is to be stopped for: it is looked at again in some seconds. */
const ownWant = new Set(["EMFILE", "ENFILE", "ENOMEM"]);

/**
 * Looks at what is below the directory, links not followed. What vanishes meanwhile is left out; what hides from us (too
 * deep for a path, closed to our user) is `isMore`. Paths are bytes: a name need not be UTF-8.
 */
export async function diskUse(root: string, bound = mostEntries): Promise<DiskUse> {
  let bytes = 0;
  let entries = 0;
  let isMore = false;
  const look = async <T>(read: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await read();
    } catch (error) {
      const errno = errnoOf(error);
      if (!gone.has(errno) && !ownWant.has(errno)) isMore = true;
      return undefined;
    }
  };
  const queue = [{ path: Buffer.from(root), size: (await look(() => lstat(root)))?.size ?? 0 }];
  for (let directory = queue.pop(); directory !== undefined; directory = queue.pop()) {
    const { path: above, size } = directory;
    if (size > mostDirectoryBytes) {
      isMore = true;
      continue;
    }
    // As latin1 each byte is a character: a Buffer for each of many names would hold the event loop.
    for (const name of (await look(() => readdir(above, { encoding: "latin1" }))) ?? []) {
      if (entries === bound) return { bytes, entries, isMore: true };
      entries++;
      const path = Buffer.concat([above, Buffer.from(`/${name}`, "latin1")]);
      const stat = await look(() => lstat(path));
      // A file with several names is counted with each: it cannot be made smaller that way.
      bytes += (stat?.blocks ?? 0) * 512;
      if (stat?.isDirectory()) queue.push({ path, size: stat.size });
    }
  }
  return { bytes, entries, isMore };
}

/** Why what is used of several directories is over the limit, or undefined. */
export function overDiskLimit(uses: readonly DiskUse[], limitBytes: number): string | undefined {
  const bytes = uses.reduce((sum, use) => sum + use.bytes, 0);
  if (bytes > limitBytes) return `its directory holds ${bytes} bytes, and its limit is ${limitBytes}`;
  if (!uses.some((use) => use.isMore)) return undefined;
  return (
    `its directory cannot be held to its limit: it holds more than ${mostEntries} files, or some so deep or so closed ` +
    "that they cannot be looked at"
  );
}
