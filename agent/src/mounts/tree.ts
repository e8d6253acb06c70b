/** Trees of files that an instance is given: copied or linked, in turns, so that large ones do not hold the event loop. */
import { constants, type Stats } from "node:fs";
import { chmod, copyFile, lchown, link, lstat, mkdir, readdir, readlink, symlink } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../files.ts";
import type { Identity } from "../sandbox.ts";

/** A place in a tree: what is there, if anything. Links are not followed. */
export async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Copies what is below a directory into one that exists; the copy is the owner's to write to. */
export async function copyTree(from: string, to: string, owner: Identity | undefined): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) {
      await mkdir(target, { mode: 0o700 });
      await copyTree(source, target, owner);
    } else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else if (entry.isFile()) {
      await copyFile(source, target, constants.COPYFILE_FICLONE);
      await chmod(target, (await lstat(source)).mode & 0o100 ? 0o700 : 0o600);
    } else continue;
    if (owner) await lchown(target, owner.uid, owner.gid);
  }
}

/**
 * Makes a directory that looks like another: its directories are made anew, its files are linked, not copied.
 * @param instead what stands at a path (relative, "data/files") in its place: a link to this directory
 */
export async function linkTree(
  from: string,
  to: string,
  instead: ReadonlyMap<string, string>,
  below = "",
): Promise<void> {
  await mkdir(to, { mode: 0o755 });
  const entries = await readdir(from, { withFileTypes: true });
  for (const entry of entries) {
    const path = below + entry.name;
    if (instead.has(path)) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await linkTree(source, target, instead, `${path}/`);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else await link(source, target);
  }
  await chmod(to, 0o755); // whatever the umask is
  const names = new Set(entries.map(({ name }) => name));
  for (const [path, target] of instead) {
    if (!path.startsWith(below)) continue;
    const [name, ...rest] = path.slice(below.length).split("/");
    if (rest.length === 0) await symlink(target, join(to, name!));
    else if (!names.has(name!)) await makeParents(to, [name!, ...rest], target);
  }
}

/** Directories that the tree does not have. */
async function makeParents(root: string, parts: readonly string[], target: string): Promise<void> {
  const parent = join(root, ...parts.slice(0, -1));
  const first = await mkdir(parent, { recursive: true, mode: 0o755 });
  if (first !== undefined)
    for (let at = parent; at.startsWith(first); at = join(at, "..")) await chmod(at, 0o755);
  await symlink(target, join(root, ...parts));
}
