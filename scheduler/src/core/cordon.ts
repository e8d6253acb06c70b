/** Cordon: no new instance is placed on a node. */
import { NodeChange } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { cancelDrain } from "./drain.ts";
import type { Input } from "./inputs.ts";
import type { Node } from "./model.ts";
import { nodeChanged } from "./node-events.ts";

export function cordon(ctx: Context, call: string, name: string, cordoned: boolean): void {
  const node = ctx.state.nodes.get(name);
  if (!node) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-node-of-name", node: name } });
    return;
  }
  const before = node.cordoned;
  note(ctx, node, cordoned);
  if (!cordoned) cancelDrain(ctx, node);
  // It holds at once, and is answered when the next leader would know it, too.
  persist(ctx, node, {
    durable: { type: "cordon-durable", call },
    failed: { type: "cordon-failed", call, node: name, before },
  });
}

export function cordonFailed(ctx: Context, call: string, name: string, before: boolean): void {
  const node = ctx.state.nodes.get(name);
  if (node) note(ctx, node, before);
  const message = "the store did not take it";
  ctx.emit({ type: "refuse", call, refusal: { kind: "store-down", message } });
}

/** For whoever tells its caller something else: persisted in time. */
export function setCordon(ctx: Context, node: Node, cordoned: boolean): void {
  if (node.cordoned === cordoned) return;
  note(ctx, node, cordoned);
  persist(ctx, node, {});
}

function persist(
  ctx: Context,
  { name, agentUrl, bootId, cordoned }: Node,
  then: { durable?: Input; failed?: Input },
): void {
  ctx.emit({
    type: "persist",
    write: { kind: "node", record: { name, agentUrl, bootId, cordoned } },
    ...then,
  });
}

function note(ctx: Context, node: Node, cordoned: boolean): void {
  if (node.cordoned === cordoned) return;
  node.cordoned = cordoned;
  const change = cordoned ? NodeChange.CORDONED : NodeChange.UNCORDONED;
  nodeChanged(ctx, node.name, change, "");
  if (!cordoned) ctx.roomOn.add(node.name);
}
