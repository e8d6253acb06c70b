/**
 * One cgroup v2 per instance, below the agent's own. Without any controller it still holds processes together, kills,
 * freezes and counts CPU; with memory, cpu and pids it limits them.
 */
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { messageOf } from "../files.ts";
import { GroupDirectory, ownGroup } from "./cgroupfs.ts";
import { noGroup } from "./group.ts";
import type { Freezer, Group, GroupLimits, Host } from "./host.ts";
import { HotFile } from "./hot-file.ts";
import type { Kernel } from "./kernel.ts";

const controllers = ["memory", "cpu", "pids"];
/** Group for the agent itself where the kernel lets only leaves hold processes ("no internal processes"). */
const ownLeaf = "warren-agent";
const cpuPeriodUs = 100_000;

export class CgroupV2Host implements Host {
  readonly kind = "cgroup-v2";

  private constructor(
    private readonly root: GroupDirectory,
    readonly kernel: Kernel,
    readonly missing: readonly string[],
  ) {}

  get limits(): boolean {
    return this.missing.length === 0;
  }

  /** A host whose groups were seen to work, or the reason why there are none. */
  static async probe(name: string, kernel: Kernel): Promise<CgroupV2Host | string> {
    const own = ownGroup("");
    if (!own) return "cgroup v2 is not mounted";
    // Started again in the leaf that an agent before this one moved to.
    const base = new GroupDirectory(basename(own) === ownLeaf ? dirname(own) : own);
    const root = new GroupDirectory(join(base.path, name));
    const trial = new GroupDirectory(join(root.path, "trial"));
    try {
      trial.make();
      if (trial.read("cgroup.events") === undefined) return `${trial.path} is no cgroup`;
      // Joining needs rights on the common ancestor too; only doing it tells.
      const child = Bun.spawn(["true"], {
        cgroup: trial.path,
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
      });
      if ((await child.exited) !== 0) return `a process could not be started in ${trial.path}`;
      if (!trial.tryWrite("cgroup.kill", 1)) return "this kernel has no cgroup.kill (before 5.14)";
      trial.remove();
      const why = enableControllers(base, root);
      return new CgroupV2Host(root, kernel, why === undefined ? [] : [`no limits by cgroup v2: ${why}`]);
    } catch (error) {
      return messageOf(error);
    }
  }

  /** The same host, knowing what else it lacks. */
  lacking(why: string): CgroupV2Host {
    return new CgroupV2Host(this.root, this.kernel, [...this.missing, why]);
  }

  createGroup(id: string, limits: GroupLimits | undefined): CgroupV2 {
    const group = new CgroupV2(join(this.root.path, id));
    group.directory.make();
    try {
      if (limits) applyLimits(group.directory, limits);
    } catch (error) {
      group.remove();
      throw error;
    }
    return group;
  }

  openGroup(path: string): Group {
    // A record of a time without cgroups, or of before its spawn, names none.
    return path === "" ? noGroup : new CgroupV2(path);
  }

  close(): void {
    this.root.removeIfEmpty();
  }

  sweep(keep: ReadonlySet<string>): void {
    for (const name of this.root.children()) {
      const path = join(this.root.path, name);
      if (!keep.has(path)) new GroupDirectory(path).remove();
    }
  }
}

/** Makes the controllers available below `root`; the reason why not, or undefined. */
function enableControllers(base: GroupDirectory, root: GroupDirectory): string | undefined {
  const available = (base.read("cgroup.controllers") ?? "").trim().split(" ");
  const lacking = controllers.filter((name) => !available.includes(name));
  if (lacking.length > 0) return `the controllers ${lacking.join(", ")} are not delegated to ${base.path}`;
  const wish = controllers.map((name) => `+${name}`).join(" ");
  const enable = () => base.tryWrite("cgroup.subtree_control", wish);
  if (!enable()) {
    // A group with processes of its own cannot hand controllers on: they move into a leaf. At the root of a cgroup
    // namespace (a container) all are ours to move; elsewhere only this process is.
    const leaf = new GroupDirectory(join(base.path, ownLeaf));
    leaf.make();
    const root = ownGroup("")?.endsWith("/") ?? false;
    for (const pid of root ? base.pids() : [process.pid]) leaf.tryWrite("cgroup.procs", pid);
    if (!enable()) {
      return `${base.path} holds other processes; run the agent in a group of its own (systemd: Delegate=yes)`;
    }
  }
  return root.tryWrite("cgroup.subtree_control", wish) ? undefined : `${root.path} cannot hand them on`;
}

/** Exported for its test, which looks at what is written. */
export function applyLimits(group: GroupDirectory, { memoryBytes, cpuMillis, pids }: GroupLimits): void {
  if (memoryBytes > 0) group.write("memory.max", memoryBytes);
  // One process killed for want of memory leaves a broken tenant: all of it goes.
  group.write("memory.oom.group", 1);
  if (cpuMillis > 0) group.write("cpu.max", `${Math.ceil((cpuMillis * cpuPeriodUs) / 1000)} ${cpuPeriodUs}`);
  if (pids > 0) group.write("pids.max", pids);
}

export class CgroupV2 implements Group {
  readonly directory: GroupDirectory;
  readonly freezer: Freezer;
  readonly #countsMemory: boolean;
  /** Read at each observation. */
  readonly #procs: HotFile;
  readonly #cpu: HotFile;

  constructor(readonly path: string) {
    const directory = new GroupDirectory(path);
    this.directory = directory;
    this.#procs = new HotFile(join(path, "cgroup.procs"));
    this.#cpu = new HotFile(join(path, "cpu.stat"));
    this.#countsMemory = directory.read("memory.current") !== undefined;
    this.freezer = {
      set: (frozen) => void directory.tryWrite("cgroup.freeze", frozen ? 1 : 0),
      isFrozen: () => directory.field("cgroup.events", "frozen") === 1,
    };
  }

  get spawnInto(): string {
    return this.path;
  }

  enter(): void {}

  listPids(): number[] {
    const own = (this.#procs.read() ?? "").split("\n").filter(Boolean).map(Number);
    if (own.length > 0 || this.directory.field("cgroup.events", "populated") !== 1) return own;
    // Only a tenant of the agent's own user can have made groups of its own, and moved all that it has there.
    return this.directory.pidsBelow();
  }

  killAll(): void {
    // If it fails the group is gone, or its processes are killed one by one as well.
    this.directory.tryWrite("cgroup.kill", 1);
  }

  cpuUs(): number | undefined {
    const usec = /^usage_usec (\d+)/.exec(this.#cpu.read() ?? "")?.[1];
    return usec === undefined ? undefined : Number(usec);
  }

  memoryBytes(): number | undefined {
    // Asked each second for ever: where the controller is not, that is found out once.
    return this.#countsMemory ? this.directory.number("memory.current") : undefined;
  }

  oomKills(): number {
    return this.#countsMemory ? (this.directory.field("memory.events", "oom_kill") ?? 0) : 0;
  }

  get pageOut(): (() => Promise<void>) | undefined {
    if (!this.#countsMemory) return undefined;
    return async () => {
      // In a thread of the pool: the kernel answers when it is done. EAGAIN: it could not reclaim all that was asked.
      const all = this.directory.number("memory.current") ?? 0;
      await writeFile(join(this.path, "memory.reclaim"), String(all)).catch(() => undefined);
    };
  }

  remove(): boolean {
    this.#procs.close();
    this.#cpu.close();
    return this.directory.remove();
  }
}
