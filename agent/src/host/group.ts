/** The group of an instance that has none. */
import type { Group } from "./host.ts";

export const noGroup: Group = {
  path: "",
  spawnInto: undefined,
  listPids: () => [],
  killAll: () => undefined,
  cpuUs: () => undefined,
  memoryBytes: () => undefined,
  remove: () => true,
};
