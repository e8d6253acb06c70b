/** Why a tenant is where it is, or nowhere, in a sentence or two. */
import { exitReasonText } from "@warren/common/exit-reason";
import { ExitReason, InstanceMode, RolloutState } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import { refusedText } from "./filters.ts";
import { limitInTheWay, limitText } from "./limits.ts";
import {
  type Instance,
  instancesOf,
  type Moment,
  newestOf,
  type State,
  serving,
  type Tenant,
} from "./model.ts";
import { volumesText } from "./volume-text.ts";

export function explain(state: State, config: CoreConfig, key: string, at: Moment): string | undefined {
  const tenant = state.tenants.get(key);
  if (!tenant) return undefined;
  return `${placeText(state, config, tenant, at)}${rolloutText(tenant)}${volumesText(state, tenant, at)}`;
}

function placeText(state: State, config: CoreConfig, tenant: Tenant, at: Moment): string {
  const { key } = tenant;
  const instances = instancesOf(state, key);
  const newest = newestOf(state, key);
  if (newest) {
    const { node, id } = newest.ref;
    const placed = tenant.where ?? `on node ${node}: placed by an earlier scheduler`;
    const others = instances.filter(({ lost }) => !lost).length - 1;
    const more = others > 0 ? ` It has ${others} more instance${others === 1 ? "" : "s"}.` : "";
    return `${id} ${placed}; ${doing(newest)}.${more}`;
  }
  const lost = instances[0] ? ` Its last instance is on node ${instances[0].ref.node}, which is lost.` : "";
  if (serving(tenant).spec.source.case === undefined)
    return "It has no source: deploy a release or give its spec a directory.";
  const limit = limitInTheWay(tenant, at);
  if (limit)
    return `It has reached a limit on its use: ${limitText(limit)}. Nothing of it runs until then, or until its spec allows more.`;
  if (tenant.backoffUntil > at.mono) {
    const seconds = ((tenant.backoffUntil - at.mono) / 1000).toFixed(1);
    return `It is in back-off for ${seconds} s more after ${tenant.failures} failures in a row; the last: ${endText(tenant.lastExit)}.${lastLine(tenant.lastExit)}`;
  }
  const nowhere = tenant.nowhere ? refusedText(tenant.nowhere) : "none was tried yet";
  if (state.parked.has(key)) return `It waits for a node: ${nowhere}.${lost}`;
  if (state.queue.has(key)) {
    if (state.live < config.maxConcurrent) return `It waits for a node: ${nowhere}.${lost}`;
    return `It waits for a place: ${state.live} instances are live of ${config.maxConcurrent} allowed, and none of them is idle.${lost}`;
  }
  if (tenant.nowhere) {
    return `At the last request no node could take it: ${nowhere}; the next request tries again.${lost}`;
  }
  const evicted = evictionOf(tenant);
  if (evicted) {
    const seconds = ((at.mono - evicted.at) / 1000).toFixed(1);
    return `It was evicted ${seconds} s ago ${evicted.message}. The next request starts it.${lost}`;
  }
  const last = tenant.lastExit
    ? ` Its last instance ended: ${endText(tenant.lastExit)}.${lastLine(tenant.lastExit)}`
    : "";
  return `Nobody has asked for it since; the next request starts it.${last}${lost}`;
}

/** The eviction that its last instance ended by, if it did. */
export function evictionOf({ evicted, lastExit }: Tenant): Tenant["evicted"] {
  return lastExit?.reason === ExitReason.LRU_EVICTED ? evicted : undefined;
}

function doing({ phase, mode, ref }: Instance): string {
  switch (phase.kind) {
    case "persisting":
      return "its placement is being persisted";
    case "starting":
      return "it is starting";
    case "ready":
      if (mode === InstanceMode.FROZEN) return "it is frozen, and wakes with the next request";
      if (mode === InstanceMode.PAGED_OUT)
        return "it is frozen and paged out, and wakes with the next request";
      return "it serves";
    case "draining":
      return "its last requests are finishing before it stops";
    case "stopping":
      return "it is being stopped";
    case "unconfirmed":
      return `node ${ref.node} has not reported since this scheduler took over`;
  }
}

function rolloutText({ rollout, rejected }: Tenant): string {
  switch (rollout?.state) {
    case RolloutState.RUNNING:
      return ` Version ${rollout.to.version} is replacing version ${rollout.from.version}: ${rollout.replaced} of ${rollout.total} done.`;
    case RolloutState.ROLLING_BACK:
      return ` Version ${rollout.to.version} did not become ready (${rollout.message}): it is being rolled back.`;
    default:
      return rejected
        ? ` The newest version did not become ready and was rolled back${rollout?.message ? ` (${rollout.message})` : ""}: the one before serves.`
        : "";
  }
}

/** Its last line of output says more than any code. */
function lastLine(exit: { lastOutput: string[] } | undefined): string {
  const line = exit?.lastOutput.findLast((text) => text.trim() !== "");
  return line ? ` It said: ${line.slice(0, 200)}` : "";
}

function endText(exit: { reason: ExitReason; message: string } | undefined): string {
  if (!exit) return "unknown";
  return `${exitReasonText(exit.reason)}${exit.message ? ` (${exit.message})` : ""}`;
}
