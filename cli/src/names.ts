/** Values of the contracts' enums as people write them: "idle-killed", "ready". */
import { exitReasonText } from "@warren/common/exit-reason";
import { rungName } from "@warren/common/isolation";
import { InstanceMode, InstanceState, Isolation, NodeState } from "@warren/proto/common";

/** "CPU_SECONDS" is "cpu-seconds". */
export function enumText(name: string | undefined): string {
  return (name ?? "unknown").toLowerCase().replaceAll("_", "-");
}

export const stateName = (state: InstanceState): string => enumText(InstanceState[state]);
export const modeName = (mode: InstanceMode): string => enumText(InstanceMode[mode]);
export const nodeStateName = (state: NodeState): string => enumText(NodeState[state]);

export { exitReasonText as reasonName };

/** The ladder of isolation as it is typed; "auto" is the highest rung that there is. */
export const rungNames = ["auto", "none", "user", "cgroup", "namespace"] as const;

export type RungName = (typeof rungNames)[number];

export const rungOf: Record<RungName, Isolation> = {
  auto: Isolation.UNSPECIFIED,
  none: Isolation.NONE,
  user: Isolation.USER,
  cgroup: Isolation.CGROUP,
  namespace: Isolation.NAMESPACE,
};

/** The highest of some rungs, each of which includes those below it; "-" where none is known. */
export function rungsName(rungs: readonly Isolation[]): string {
  const highest = Math.max(Isolation.UNSPECIFIED, ...rungs);
  return highest === Isolation.UNSPECIFIED ? "-" : rungName(highest);
}

/** An enum's values by their names on the command line: "CPU_SECONDS" is "cpu-seconds". Without the unspecified one. */
export function namesOf<T extends number>(values: Record<string, string | T>): ReadonlyMap<string, T> {
  const named = Object.entries(values).filter(
    (entry): entry is [string, T] => typeof entry[1] === "number" && entry[1] !== 0,
  );
  return new Map(named.map(([name, value]) => [name.toLowerCase().replaceAll("_", "-"), value]));
}
