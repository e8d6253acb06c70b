/** Cordon: no new instance is placed on a node. */
import { create } from "@bufbuild/protobuf";
import { NodeChange, NodeChangedSchema } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { cancelDrain } from "./drain.ts";
import type { Node } from "./model.ts";

export function cordon(ctx: Context, call: string, name: string, cordoned: boolean): void {
  const node = ctx.state.nodes.get(name);
  if (!node) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-node-of-name", node: name } });
    return;
  }
  setCordon(ctx, node, cordoned);
  if (!cordoned) cancelDrain(ctx, node);
  ctx.emit({ type: "answer", call, answer: { kind: "done" } });
}

export function setCordon(ctx: Context, node: Node, cordoned: boolean): void {
  if (node.cordoned === cordoned) return;
  node.cordoned = cordoned;
  const { name, agentUrl, bootId } = node;
  ctx.emit({ type: "persist", write: { kind: "node", record: { name, agentUrl, bootId, cordoned } } });
  const change = cordoned ? NodeChange.CORDONED : NodeChange.UNCORDONED;
  nodeChanged(ctx, name, change, "");
  ctx.nodesChanged = true;
}

export function nodeChanged(ctx: Context, node: string, change: NodeChange, message: string): void {
  ctx.emit({
    type: "event",
    tenant: "",
    payload: { case: "node", value: create(NodeChangedSchema, { node, change, message }) },
  });
}
