/** Why a tenant is where it is, or nowhere, in a sentence or two. */
import { ExitReason } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import { instancesOf, type Moment, type State } from "./model.ts";
import { refusedText } from "./place.ts";

export function explain(state: State, config: CoreConfig, key: string, at: Moment): string | undefined {
  const tenant = state.tenants.get(key);
  if (!tenant) return undefined;
  const instances = instancesOf(state, key);
  const standing = instances.find((instance) => !instance.lost);
  if (standing) {
    const { node, id } = standing.ref;
    const placed = tenant.where ?? `on node ${node}: placed by an earlier scheduler`;
    const doing: Record<string, string> = {
      persisting: "its placement is being persisted",
      starting: "it is starting",
      ready: "it serves",
      draining: "its last requests are finishing before it stops",
      stopping: "it is being stopped",
      unconfirmed: `node ${node} has not reported since this scheduler took over`,
    };
    return `${id} ${placed}; ${doing[standing.phase.kind]}.`;
  }
  const lost = instances[0] ? ` Its last instance is on node ${instances[0].ref.node}, which is lost.` : "";
  if (tenant.spec.source.case === undefined)
    return "It has no source: deploy a release or give its spec a directory.";
  if (tenant.backoffUntil > at.mono) {
    const seconds = ((tenant.backoffUntil - at.mono) / 1000).toFixed(1);
    return `It is in back-off for ${seconds} s more after ${tenant.failures} failures in a row; the last: ${endText(tenant.lastExit)}.`;
  }
  if (state.queue.has(key)) {
    if (state.live >= config.maxConcurrent) {
      return `It waits for a place: ${state.live} instances are live of ${config.maxConcurrent} allowed, and none of them is idle.${lost}`;
    }
    const nowhere = tenant.nowhere ? refusedText(tenant.nowhere) : "none was tried yet";
    return `It waits for a node: ${nowhere}.${lost}`;
  }
  if (tenant.nowhere) {
    return `At the last request no node could take it: ${refusedText(tenant.nowhere)}; the next request tries again.${lost}`;
  }
  const last = tenant.lastExit ? ` Its last instance ended: ${endText(tenant.lastExit)}.` : "";
  return `Nobody has asked for it since; the next request starts it.${last}${lost}`;
}

function endText(exit: { reason: ExitReason; message: string } | undefined): string {
  if (!exit) return "unknown";
  return `${ExitReason[exit.reason]?.toLowerCase().replaceAll("_", "-")}${exit.message ? ` (${exit.message})` : ""}`;
}
