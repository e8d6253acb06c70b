/** Values of the contracts' enums as people write them: "idle-killed", "ready". */
import { ExitReason, InstanceMode, InstanceState, NodeState } from "@warren/proto/common";

function text(name: string | undefined): string {
  return (name ?? "unknown").toLowerCase().replaceAll("_", "-");
}

export const reasonName = (reason: ExitReason): string => text(ExitReason[reason]);
export const stateName = (state: InstanceState): string => text(InstanceState[state]);
export const modeName = (mode: InstanceMode): string => text(InstanceMode[mode]);
export const nodeStateName = (state: NodeState): string => text(NodeState[state]);
