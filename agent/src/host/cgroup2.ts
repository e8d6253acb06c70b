/** One cgroup v2 per instance, below the agent's own. No controller is needed: cgroup.kill and cpu.stat always work. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMissing, messageOf } from "../files.ts";
import { noGroup } from "./group.ts";
import type { Group, Host } from "./host.ts";

export class CgroupV2Host implements Host {
  readonly kind = "cgroup-v2";

  constructor(private readonly root: string) {}

  /** A host whose groups were seen to work, or the reason why there are none. */
  static async probe(name: string): Promise<CgroupV2Host | string> {
    const own = ownGroup();
    if (!own) return "cgroup v2 is not mounted";
    const root = join(own, name);
    const trial = join(root, "trial");
    try {
      mkdirSync(trial, { recursive: true });
      if (!existsSync(join(trial, "cgroup.kill"))) return "this kernel has no cgroup.kill (before 5.14)";
      // Joining needs rights on the common ancestor too; only doing it tells.
      const child = Bun.spawn(["true"], {
        cgroup: trial,
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
      });
      if ((await child.exited) !== 0) return `a process could not be started in ${trial}`;
      writeFileSync(join(trial, "cgroup.kill"), "1");
      rmdirSync(trial);
      return new CgroupV2Host(root);
    } catch (error) {
      return messageOf(error);
    }
  }

  createGroup(id: string): Group {
    const path = join(this.root, id);
    mkdirSync(path, { recursive: true });
    return new CgroupV2(path);
  }

  openGroup(path: string): Group {
    // A record of a time without cgroups, or of before its spawn, names none.
    return path === "" ? noGroup : new CgroupV2(path);
  }

  close(): void {
    new CgroupV2(this.root).removeIfEmpty();
  }

  sweep(keep: ReadonlySet<string>): void {
    for (const entry of readdirSync(this.root, { withFileTypes: true })) {
      const path = join(this.root, entry.name);
      if (entry.isDirectory() && !keep.has(path)) new CgroupV2(path).remove();
    }
  }
}

export class CgroupV2 implements Group {
  #countsMemory: boolean | undefined;

  constructor(readonly path: string) {}

  get spawnInto(): string {
    return this.path;
  }

  listPids(): number[] {
    const text = this.#read("cgroup.procs");
    return text ? text.trim().split("\n").filter(Boolean).map(Number) : [];
  }

  killAll(): void {
    try {
      writeFileSync(join(this.path, "cgroup.kill"), "1");
    } catch {
      // Gone, or a kernel before 5.14: its processes are killed one by one as well.
    }
  }

  cpuUs(): number | undefined {
    const usec = /^usage_usec (\d+)$/m.exec(this.#read("cpu.stat") ?? "")?.[1];
    return usec === undefined ? undefined : Number(usec);
  }

  memoryBytes(): number | undefined {
    // Asked each second for ever: where the controller is not, that is found out once.
    this.#countsMemory ??= existsSync(join(this.path, "memory.current"));
    const text = this.#countsMemory ? this.#read("memory.current") : undefined;
    return text === undefined ? undefined : Number(text);
  }

  remove(): boolean {
    try {
      // A tenant with the right to may have made groups of its own below.
      for (const entry of readdirSync(this.path, { withFileTypes: true })) {
        if (entry.isDirectory()) new CgroupV2(join(this.path, entry.name)).remove();
      }
      rmdirSync(this.path);
      return true;
    } catch (error) {
      return isMissing(error); // EBUSY: the kernel has not let go of its last process yet
    }
  }

  removeIfEmpty(): void {
    try {
      rmdirSync(this.path);
    } catch {
      // Something lives in it: the next agent goes on with it.
    }
  }

  #read(file: string): string | undefined {
    try {
      return readFileSync(join(this.path, file), "utf8");
    } catch {
      return undefined; // gone, or a controller that this host does not have
    }
  }
}

/** Where the agent's own group is in the file system. */
function ownGroup(): string | undefined {
  const own = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1];
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const mount = mounts.split("\n").find((line) => line.split(" ")[2] === "cgroup2");
  return own === undefined || !mount ? undefined : join(mount.split(" ")[1]!, own);
}
