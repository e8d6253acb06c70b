/** A host without cgroups. */
import { CgroupV2 } from "./cgroup2.ts";
import { noGroup } from "./group.ts";
import type { Group, Host } from "./host.ts";

/** A host without cgroups, or one where we may not make any: processes are found by session, tree and environment. */
export class PlainHost implements Host {
  readonly kind = "none";
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
