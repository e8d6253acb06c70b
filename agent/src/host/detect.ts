/** Which host this is: the best that works, tried and not guessed. */
import { createHash } from "node:crypto";
import type { Logger } from "@warren/common/log";
import { CgroupV2Host } from "./cgroup2.ts";
import type { Host } from "./host.ts";
import { HybridHost } from "./hybrid.ts";
import { linuxKernel } from "./linux.ts";
import { PlainHost } from "./none.ts";
import { portableKernel } from "./portable.ts";

/** "auto" takes the best that works; the others take no more than that: for tests, and hosts where more misbehaves. */
export type HostChoice = "auto" | "cgroup-v2" | "none" | "portable";

/** The best this host has: tried, not guessed from what is mounted. */
export async function detectHost(
  node: string,
  runtimeDirectory: string,
  choice: HostChoice,
  log: Logger,
): Promise<Host> {
  if (choice === "portable" || process.platform !== "linux")
    return new PlainHost(portableKernel(), "portable");
  const kernel = linuxKernel();
  if (choice === "none") return new PlainHost(kernel, "none");
  // Two cells on one laptop may both call their node "local": the runtime directory tells them apart.
  const mark = createHash("sha256").update(runtimeDirectory).digest("hex").slice(0, 8);
  const name = `warren-${node}-${mark}`;
  const v2 = await CgroupV2Host.probe(name, kernel);
  if (!(v2 instanceof CgroupV2Host)) {
    log.warn({ why: v2 }, "no writable cgroup v2 here: instances are held together by process tree alone");
    return new PlainHost(kernel, "none");
  }
  if (v2.limits || choice === "cgroup-v2") return v2;
  const hybrid = HybridHost.probe(v2, name);
  return hybrid instanceof HybridHost ? hybrid : v2.lacking(hybrid);
}
