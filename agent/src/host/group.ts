/** The group of an instance that has none. */
import type { Group } from "./host.ts";

export const noGroup: Group = {
  path: "",
  spawnInto: undefined,
  enter: () => undefined,
  listPids: () => [],
  killAll: () => undefined,
  cpuUs: () => undefined,
  memoryBytes: () => undefined,
  oomKills: () => 0,
  freezer: undefined,
  pageOut: undefined,
  remove: () => true,
};
