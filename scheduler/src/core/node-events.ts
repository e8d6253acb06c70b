/** What the world is told of nodes. */
import { create } from "@bufbuild/protobuf";
import { type NodeChange, NodeChangedSchema } from "@warren/proto/common";
import type { Context } from "./context.ts";

export function nodeChanged(ctx: Context, node: string, change: NodeChange, message: string): void {
  ctx.emit({
    type: "event",
    tenant: "",
    payload: { case: "node", value: create(NodeChangedSchema, { node, change, message }) },
  });
}
