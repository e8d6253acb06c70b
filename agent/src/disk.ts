/** What a tenant's directory holds; the tenant may be writing to it, and may have filled it with anything. */
import { lstat, opendir } from "node:fs/promises";
import { join } from "node:path";

export interface DiskUse {
  /** Blocks that its files hold, in bytes: a sparse file counts what is written of it. */
  readonly bytes: number;
  readonly entries: number;
  /** Whether there is more than was looked at. */
  readonly isMore: boolean;
}

/** With more than these it is not looked at further: 20,000 cost 0.3 s of the file system's threads. */
export const mostEntries = 20_000;

/** Looks at what is below the directory, links not followed. What vanishes meanwhile is left out. */
export async function diskUse(root: string, bound = mostEntries): Promise<DiskUse> {
  let bytes = 0;
  let entries = 0;
  const queue = [root];
  for (let directory = queue.pop(); directory !== undefined; directory = queue.pop()) {
    try {
      for await (const entry of await opendir(directory)) {
        if (++entries > bound) return { bytes, entries: bound, isMore: true };
        const path = join(directory, entry.name);
        if (entry.isDirectory()) queue.push(path);
        const stat = await lstat(path).catch(() => undefined);
        // A file with several names is counted with each: it cannot be made smaller that way.
        bytes += (stat?.blocks ?? 0) * 512;
      }
    } catch {
      // gone meanwhile
    }
  }
  return { bytes, entries, isMore: false };
}

/** Why what is used of several directories is over the limit, or undefined. */
export function overDiskLimit(uses: readonly DiskUse[], limitBytes: number): string | undefined {
  const bytes = uses.reduce((sum, use) => sum + use.bytes, 0);
  if (bytes > limitBytes) return `its directory holds ${bytes} bytes, and its limit is ${limitBytes}`;
  if (!uses.some((use) => use.isMore)) return undefined;
  return `its directory holds more than ${mostEntries} files, too many to hold it to its limit`;
}
