/** Tells a volume that has not changed: by the names, sizes and times of its files, without reading them. */
import { createHash } from "node:crypto";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../files.ts";

/** SQLite's shared memory changes with each reader, and says nothing about the content. */
const saysNothing = /-shm$/;

export async function fingerprintOf(root: string): Promise<string> {
  const hash = createHash("sha256");
  const look = async (directory: string, below: string): Promise<void> => {
    const names = await readdir(directory);
    for (const name of names.sort()) {
      if (saysNothing.test(name)) continue;
      try {
        const stat = await lstat(join(directory, name), { bigint: true });
        const size = stat.isDirectory() ? 0n : stat.size;
        const time = stat.isDirectory() ? 0n : stat.mtimeNs;
        hash.update(`${JSON.stringify(below + name)} ${stat.mode} ${size} ${time}\n`);
        if (stat.isDirectory()) await look(join(directory, name), `${below}${name}/`);
      } catch (error) {
        if (!isMissing(error)) throw error; // it went meanwhile
      }
    }
  };
  await look(root, "");
  return hash.digest("hex");
}
