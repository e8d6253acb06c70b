/** Control files of a cgroup. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMissing, readIfThere } from "../files.ts";

/** A cgroup's directory. */
export class GroupDirectory {
  constructor(readonly path: string) {}

  make(): void {
    mkdirSync(this.path, { recursive: true });
  }

  /**
   * Undefined when it is gone, or a file that this host does not have.
   * @throws Error of the file system (EMFILE, ENFILE, ENOMEM …) where that is not known
   */
  read(file: string): string | undefined {
    return readIfThere(join(this.path, file));
  }

  /** @throws Error of the file system */
  write(file: string, value: string | number): void {
    writeFileSync(join(this.path, file), String(value));
  }

  /** For what need not work: the group may be gone. */
  tryWrite(file: string, value: string | number): boolean {
    try {
      this.write(file, value);
      return true;
    } catch {
      return false;
    }
  }

  number(file: string): number | undefined {
    const text = this.read(file);
    return text === undefined ? undefined : Number(text);
  }

  /** The value of a line "name value". */
  field(file: string, name: string): number | undefined {
    for (const line of (this.read(file) ?? "").split("\n")) {
      if (line.startsWith(`${name} `)) return Number(line.slice(name.length + 1));
    }
    return undefined;
  }

  /** Processes of the groups below, however deep; a tenant may have made as many as the kernel lets it. */
  pidsBelow(): number[] {
    return this.children().flatMap((name) => {
      const child = new GroupDirectory(join(this.path, name));
      return [...child.pids(), ...child.pidsBelow()];
    });
  }

  pids(): number[] {
    return (this.read("cgroup.procs") ?? "").split("\n").filter(Boolean).map(Number);
  }

  /** Removes it and what is below, if no process is in it; whether it is gone. */
  remove(): boolean {
    try {
      // A tenant with the right to may have made groups of its own below.
      for (const entry of readdirSync(this.path, { withFileTypes: true })) {
        if (entry.isDirectory()) new GroupDirectory(join(this.path, entry.name)).remove();
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

  /** Names of the groups directly below. */
  children(): string[] {
    try {
      return readdirSync(this.path, { withFileTypes: true }).flatMap((entry) =>
        entry.isDirectory() ? [entry.name] : [],
      );
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }
}

/**
 * Where this process's own group of a hierarchy is in the file system.
 * @param controller of v1, or "" for the unified hierarchy
 */
export function ownGroup(controller: string): string | undefined {
  const own = readFileSync("/proc/self/cgroup", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .find(([id, names]) => (controller === "" ? id === "0" : names?.split(",").includes(controller)))
    ?.slice(2)
    .join(":");
  const mount = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, , type, options]) =>
      controller === "" ? type === "cgroup2" : type === "cgroup" && options?.split(",").includes(controller),
    )?.[1];
  return own === undefined || mount === undefined ? undefined : join(mount, own);
}
