/** A host without cgroups, or one where we may not make any: processes are found by session, tree, uid and environment. */
import { CgroupV2 } from "./cgroup2.ts";
import { noGroup } from "./group.ts";
import type { Group, Host } from "./host.ts";
import type { Kernel } from "./kernel.ts";

export class PlainHost implements Host {
  readonly limits = false;
  readonly missing: readonly string[];

  constructor(
    readonly kernel: Kernel,
    readonly kind: "none" | "portable",
  ) {
    this.missing = [
      "no cgroups: no limits on memory and CPU, instances are frozen by SIGSTOP, memory is PSS or less",
      ...(kind === "portable"
        ? [
            "no /proc: figures by ps, which overstate memory, and a process that forks twice and calls setsid between two looks is not found",
          ]
        : []),
    ];
  }

  createGroup(): Group {
    return noGroup;
  }

  openGroup(path: string): Group {
    // A record may name a cgroup of a time when there were some: it can still be killed and removed.
    return path === "" ? noGroup : new CgroupV2(path);
  }

  sweep(): void {}
  close(): void {}
}
