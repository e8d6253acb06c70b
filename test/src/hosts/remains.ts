/**
 * Takes away all that a site of containers consists of, whatever state it is in: a test that was killed leaves a daemon,
 * its containers, mounts, a network namespace and cgroups. Everything bears the site's name, and no other is touched.
 */
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { isAlive, type ProcessIdentity } from "@warren/common/process";
import { waitUntil } from "@warren/common/time";
import { netnsPath } from "./netns.ts";

/** Directories of sites begin with this; the rest is random. */
export const sitePrefix = "warren-hosts-";
/** Who made the site. */
export const ownerFile = "owner.json";
/** A directory is younger than its owner's file for a moment. */
const nascentMs = 60_000;
const endMs = 20_000;

/** What runs whose owner is gone have left. */
export async function sweepSites(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(sitePrefix)) continue;
    const directory = join(tmpdir(), name);
    if (!isOwned(directory)) await removeSite(directory);
  }
}

function isOwned(directory: string): boolean {
  try {
    return isAlive(JSON.parse(readFileSync(join(directory, ownerFile), "utf8")) as ProcessIdentity);
  } catch {
    const since = statSync(directory, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    return Date.now() - since < nascentMs;
  }
}

/** @throws DeadlineError when a process cannot be ended within 20 s, or something stays mounted */
export async function removeSite(directory: string): Promise<void> {
  const name = basename(directory);
  if (!name.startsWith(sitePrefix)) throw new Error(`${directory} is no site`);
  // By SIGKILL: a daemon that is asked to stop waits for its containers' grace.
  await waitUntil(
    () => {
      const pids = processesOf(directory);
      for (const pid of pids) kill(pid);
      return pids.length === 0 || undefined;
    },
    { deadlineMs: endMs, what: `the processes of ${name} to end` },
  );
  await waitUntil(
    () => {
      const mounts = mountsBelow(directory);
      for (const path of mounts) Bun.spawnSync(["umount", "-l", path]);
      return mounts.length === 0 || undefined;
    },
    { deadlineMs: endMs, what: `${directory} to be unmounted` },
  );
  if (existsSync(netnsPath(name))) Bun.spawnSync(["ip", "netns", "del", name]);
  await waitUntil(() => removeCgroups(name) || undefined, {
    deadlineMs: endMs,
    what: `the cgroups of ${name} to go`,
  });
  rmSync(directory, { recursive: true, force: true });
}

/** Daemons name the directory, the daemon's helpers are in its network, what runs in containers is in its cgroups. */
export function processesOf(directory: string): number[] {
  const name = basename(directory);
  const network = statSync(netnsPath(name), { throwIfNoEntry: false })?.ino;
  return readdirSync("/proc").flatMap((entry) => {
    const pid = Number(entry);
    // Whoever cleans up names the directory too.
    if (!Number.isInteger(pid) || pid === process.pid) return [];
    const [arguments_, cgroups] = [read(`/proc/${pid}/cmdline`), read(`/proc/${pid}/cgroup`)];
    if (arguments_.includes(reaperMark)) return [];
    const isOurs =
      arguments_.includes(directory) ||
      cgroups.includes(`/${name}/`) ||
      (network !== undefined && inodeOf(`/proc/${pid}/ns/net`) === network);
    return isOurs ? [pid] : [];
  });
}

/** In the arguments of the process that cleans up. */
export const reaperMark = "hosts/reaper.ts";

function mountsBelow(directory: string): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => path.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length);
}

/** @returns whether none is left */
function removeCgroups(name: string): boolean {
  const { stdout } = Bun.spawnSync([
    "find",
    "/sys/fs/cgroup",
    "-depth",
    "-type",
    "d",
    "(",
    "-name",
    name,
    "-o",
    "-path",
    `*/${name}/*`,
    ")",
  ]);
  let isClean = true;
  for (const path of stdout.toString().split("\n").filter(Boolean)) {
    try {
      rmdirSync(path);
    } catch {
      isClean = !existsSync(path) && isClean; // a process in it is just ending
    }
  }
  return isClean;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it has just ended
  }
}

function inodeOf(path: string): number | undefined {
  try {
    return statSync(path).ino;
  } catch {
    return undefined;
  }
}
