/**
 * Puts an instance's own directories where its app looks for them. In a mount namespace they are mounted over the release;
 * below that level the instance runs from a view of its release, a tree of hard links in which these places are links to its
 * directories. A release itself is shared and never changed, but for empty directories that serve as mount points.
 */
import { chmodSync, chownSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isAbsolute } from "@warren/common/tenant-files";
import { Isolation } from "@warren/proto/common";
import type { Identity } from "../sandbox.ts";
import { SpawnError } from "../spawn.ts";
import { copyTree, linkTree, statOf } from "./tree.ts";

/** A directory of the instance's, and where its app is to find it. */
export interface Mount {
  /** Of the spec: relative to the app's directory, or absolute. */
  readonly path: string;
  readonly source: string;
}

/** What bubblewrap mounts. */
export interface Bind {
  readonly source: string;
  readonly target: string;
}

export interface Mounted {
  /** Where the app runs from. */
  readonly directory: string;
  readonly binds: readonly Bind[];
}

export interface MountPlan {
  readonly level: Isolation;
  /** Its release or directory. */
  readonly directory: string;
  readonly isRelease: boolean;
  /** The group that may enter the release, where there is one. */
  readonly gid: number | undefined;
  /** Where a view may be made; there is nothing yet. */
  readonly view: string;
  readonly mounts: readonly Mount[];
  /** What is mounted besides, and must not be hidden. */
  readonly others: readonly string[];
}

/** @throws SpawnError by the tenant's fault, Error by the node's */
export async function mountAll(plan: MountPlan): Promise<Mounted> {
  const { level, directory, isRelease, gid, view, mounts } = plan;
  for (const { path } of mounts) checkAbsolute(plan, path);
  if (level >= Isolation.NAMESPACE) {
    const binds = [];
    for (const { path, source } of mounts) binds.push({ source, target: await mountPoint(plan, path) });
    return { directory, binds };
  }
  if (!isRelease) {
    // The agent's own user runs it from the directory itself, which it may write to.
    for (const { path } of mounts) await mkdir(join(directory, path), { recursive: true });
    return { directory, binds: [] };
  }
  await mkdir(dirname(view), { recursive: true });
  await linkTree(directory, view, new Map(mounts.map(({ path, source }) => [path, source])));
  if (gid !== undefined) {
    chownSync(view, 0, gid);
    chmodSync(view, 0o750);
  }
  return { directory: view, binds: [] };
}

function checkAbsolute({ directory, others }: MountPlan, path: string): void {
  if (!isAbsolute(path)) return;
  const hidden = [directory, ...others].find((other) => isBelow(other, path) || isBelow(path, other));
  if (hidden === undefined) return;
  throw new SpawnError(
    `its volume cannot be mounted at ${path}, where the node has its release and its home: take another path, such as /data`,
  );
}

/**
 * The agent must not be led elsewhere by a link, and a file in the way would be hidden.
 * @throws SpawnError naming what is in the way
 */
export async function checkPlace(directory: string, path: string): Promise<void> {
  if (isAbsolute(path)) return;
  let at = directory;
  for (const part of path.split("/")) {
    at = join(at, part);
    const stat = await statOf(at);
    if (stat === undefined) return;
    if (!stat.isDirectory()) {
      const what = stat.isSymbolicLink() ? "a link" : "a file";
      throw new SpawnError(
        `nothing can be mounted at ${path}: ${at.slice(directory.length + 1)} is ${what} in its release`,
      );
    }
  }
}

async function mountPoint({ directory, isRelease }: MountPlan, path: string): Promise<string> {
  if (isAbsolute(path)) return path;
  const target = join(directory, path);
  if ((await statOf(target)) !== undefined) return target;
  if (!isRelease)
    throw new SpawnError(
      `nothing can be mounted at ${path}: there is no such directory in ${directory}; make it`,
    );
  const first = await mkdir(target, { recursive: true, mode: 0o755 });
  if (first !== undefined) for (let at = target; isBelow(at, first); at = dirname(at)) chmodSync(at, 0o755);
  return target;
}

const isBelow = (path: string, parent: string): boolean => path === parent || path.startsWith(`${parent}/`);

/**
 * Directories that an instance may write to while it lives, each checked before ({@link checkPlace}).
 * @param release what they begin with; undefined: they begin empty
 */
export async function makeWritable(
  paths: readonly string[],
  release: string | undefined,
  home: string,
  owner: Identity | undefined,
): Promise<Mount[]> {
  const mounts: Mount[] = [];
  for (const [i, path] of paths.entries()) {
    const source = join(home, "writable", `${i}`);
    await mkdir(source, { recursive: true, mode: 0o700 });
    const found = release && join(release, path);
    if (found && (await statOf(found))?.isDirectory()) await copyTree(found, source, owner);
    if (owner) for (const made of [dirname(source), source]) chownSync(made, owner.uid, owner.gid);
    mounts.push({ path, source });
  }
  return mounts;
}
