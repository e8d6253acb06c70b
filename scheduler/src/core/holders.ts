/** Which nodes may have a release in their cache: those that had it started lately. A hint, bounded, never a fact. */
import type { InstanceRef } from "@warren/proto/common";
import type { Node, State } from "./model.ts";

/** Remembered by release; the oldest go. */
const most = 32;

export function holds(state: State, { release, node }: Pick<InstanceRef, "release" | "node">): void {
  if (!release) return;
  let nodes = state.holders.get(release);
  if (!nodes) {
    nodes = new Set();
    state.holders.set(release, nodes);
  }
  nodes.delete(node);
  nodes.add(node);
  if (nodes.size > most) nodes.delete(nodes.values().next().value!);
}

/** Newest first. */
export function holdersOf(state: State, release: string): Node[] {
  const found: Node[] = [];
  for (const name of [...(state.holders.get(release) ?? [])].reverse()) {
    const node = state.nodes.get(name);
    if (node) found.push(node);
  }
  return found;
}
