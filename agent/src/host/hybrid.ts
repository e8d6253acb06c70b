/**
 * The hybrid layout: a v2 group holds the instance together (kill, freeze, CPU), and v1 groups of the same name limit
 * memory, CPU and pids. Only instances with limits have v1 groups: moving a process into one costs up to 7 ms, since
 * the kernel waits for an RCU grace period, unless another was moved just before.
 */
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { messageOf } from "../files.ts";
import type { CgroupV2, CgroupV2Host } from "./cgroup2.ts";
import { GroupDirectory, ownGroup } from "./cgroupfs.ts";
import type { Freezer, Group, GroupLimits, Host } from "./host.ts";
import type { Kernel } from "./kernel.ts";

const controllers = ["memory", "cpu", "pids"] as const;
type Hierarchies = Readonly<Record<(typeof controllers)[number], GroupDirectory>>;

const cpuPeriodUs = 100_000;
/** A tenant that forks faster than we move its children is followed so often, and then not let live. */
const enterRounds = 50;

export class HybridHost implements Host {
  readonly kind = "cgroup-hybrid";
  readonly limits = true;
  readonly missing: readonly string[] = [];

  private constructor(
    private readonly v2: CgroupV2Host,
    private readonly roots: Hierarchies,
  ) {}

  /** A host whose v1 groups were seen to take limits, or the reason why there are none. */
  static probe(v2: CgroupV2Host, name: string): HybridHost | string {
    const roots: Partial<Record<(typeof controllers)[number], GroupDirectory>> = {};
    for (const controller of controllers) {
      const own = ownGroup(controller);
      if (own === undefined) return `no limits by cgroup v1: ${controller} is not mounted`;
      roots[controller] = new GroupDirectory(join(own, name));
    }
    const host = new HybridHost(v2, roots as Hierarchies);
    try {
      const trial = host.#groupsOf("trial");
      for (const controller of controllers) trial[controller].make();
      applyLimits(trial, { memoryBytes: 64 * 1024 ** 2, cpuMillis: 1000, pids: 64 });
      for (const controller of controllers) trial[controller].remove();
      return host;
    } catch (error) {
      host.close();
      return `no limits by cgroup v1: ${messageOf(error)}`;
    }
  }

  get kernel(): Kernel {
    return this.v2.kernel;
  }

  createGroup(id: string, limits: GroupLimits | undefined): Group {
    const v2 = this.v2.createGroup(id, undefined);
    if (!limits) return v2;
    const groups = this.#groupsOf(id);
    const group = new HybridGroup(v2, groups);
    try {
      for (const controller of controllers) groups[controller].make();
      applyLimits(groups, limits);
    } catch (error) {
      group.remove();
      throw error;
    }
    return group;
  }

  openGroup(path: string): Group {
    const v2 = this.v2.openGroup(path);
    if (path === "") return v2;
    const groups = this.#groupsOf(basename(path));
    return groups.memory.read("cgroup.procs") === undefined ? v2 : new HybridGroup(v2 as CgroupV2, groups);
  }

  sweep(keep: ReadonlySet<string>): void {
    this.v2.sweep(keep);
    const names = new Set([...keep].map((path) => basename(path)));
    for (const controller of controllers) {
      const root = this.roots[controller];
      for (const name of root.children()) {
        if (!names.has(name)) new GroupDirectory(join(root.path, name)).remove();
      }
    }
  }

  close(): void {
    this.v2.close();
    for (const controller of controllers) this.roots[controller].removeIfEmpty();
  }

  #groupsOf(id: string): Hierarchies {
    const { memory, cpu, pids } = this.roots;
    const below = (root: GroupDirectory) => new GroupDirectory(join(root.path, id));
    return { memory: below(memory), cpu: below(cpu), pids: below(pids) };
  }
}

function applyLimits(groups: Hierarchies, { memoryBytes, cpuMillis, pids }: GroupLimits): void {
  if (memoryBytes > 0) {
    groups.memory.write("memory.limit_in_bytes", memoryBytes);
    // Memory and swap together; the file is there only where the kernel accounts for swap.
    groups.memory.tryWrite("memory.memsw.limit_in_bytes", memoryBytes);
  }
  if (cpuMillis > 0) {
    groups.cpu.write("cpu.cfs_period_us", cpuPeriodUs);
    groups.cpu.write("cpu.cfs_quota_us", Math.ceil((cpuMillis * cpuPeriodUs) / 1000));
  }
  if (pids > 0) groups.pids.write("pids.max", pids);
}

class HybridGroup implements Group {
  constructor(
    private readonly v2: CgroupV2,
    private readonly groups: Hierarchies,
  ) {}

  get path(): string {
    return this.v2.path;
  }

  get spawnInto(): string {
    return this.v2.path;
  }

  get freezer(): Freezer {
    return this.v2.freezer;
  }

  /**
   * What it has forked since its exec is in the v2 group, which nobody leaves: all of that is moved, until a round finds
   * nothing new. Children of a process that was moved are born where it is.
   */
  enter(pid: number): void {
    const moved = new Set<number>();
    let fresh = [pid];
    for (let round = 0; fresh.length > 0 && round < enterRounds; round++) {
      for (const one of fresh) {
        moved.add(one);
        for (const controller of controllers) this.groups[controller].tryWrite("cgroup.procs", one);
      }
      fresh = this.v2.listPids().filter((one) => !moved.has(one));
    }
    if (fresh.length > 0) this.killAll(); // faster than we can follow: nothing but a fork bomb is
  }

  listPids(): number[] {
    return this.v2.listPids();
  }

  killAll(): void {
    this.v2.killAll();
  }

  cpuUs(): number | undefined {
    return this.v2.cpuUs();
  }

  memoryBytes(): number | undefined {
    return this.groups.memory.number("memory.usage_in_bytes");
  }

  oomKills(): number {
    return this.groups.memory.field("memory.oom_control", "oom_kill") ?? 0;
  }

  readonly pageOut = async () => {
    const file = join(this.groups.memory.path, "memory.force_empty");
    await writeFile(file, "0").catch(() => undefined); // it reclaims what it can
  };

  remove(): boolean {
    return [this.v2, ...Object.values(this.groups)].map((group) => group.remove()).every(Boolean);
  }
}
