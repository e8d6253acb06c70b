/** Once faults have stopped: whether everything asked for has come about, and everybody agrees on what there is. */
import { InstanceMode, InstanceState } from "@warren/proto/common";
import type { Site, Wish } from "./site.ts";

/** Stated: so long after the last fault everything has converged, ms of virtual time. */
export const convergeMs = 60_000;
/** And whatever is then asked for is there within this. */
export const probeMs = 15_000;

/** What is not yet as it should be; undefined when everything is. */
export function unsettled(site: Site): string | undefined {
  const { leader } = site;
  if (!leader) return "there is no leader";
  if (site.schedulers.size > 1) return "a scheduler that was replaced still runs";
  if (!leader.isPersisted) return "writes still wait for the store";
  const { state } = leader.core;
  if (state.waiting > 0) return `${state.waiting} calls still wait`;
  if (state.operations.size > 0)
    return `operations on ${[...state.operations.keys()].join(", ")} are not done`;
  if (state.moves.size > 0) return `${state.moves.size} instances are still being replaced`;
  for (const node of state.roster) if (node.draining) return `${node.name} is still being drained`;
  return nodes(site) ?? instances(site) ?? tenants(site) ?? gateways(site);
}

function nodes(site: Site): string | undefined {
  const { state } = site.leader!.core;
  for (const host of site.hosts.values()) {
    const node = state.nodes.get(host.name);
    const agent = site.agents.get(host.name)!;
    if (!node?.confirmed || node.lost) return `${host.name} is not up in the roster`;
    if (node.bootId !== host.bootId || node.incarnation !== agent.incarnation)
      return `${host.name} is known as it was`;
    const wish = site.wishes.get(`node ${host.name}`);
    if (wish && !isUnsure(wish) && node.cordoned !== (wish.variant !== undefined))
      return `${host.name} was ${wish.variant ? "" : "un"}cordoned, and is not`;
    if (host.disk.spool.length > 0) return `${host.name} still has records to hand over`;
  }
  return undefined;
}

function instances(site: Site): string | undefined {
  const { state } = site.leader!.core;
  let processes = 0;
  for (const host of site.hosts.values()) {
    for (const process of host.processes.values()) {
      const { id } = process.ref;
      processes++;
      const known = state.instances.get(id);
      if (!known)
        return `${id} of ${process.ref.tenant} lives on ${host.name}, and the scheduler does not know it`;
      const running = site.agents.get(host.name)!.instances.get(id);
      const serves = running?.state.told === InstanceState.READY && running.state.phase === "ready";
      if (known.phase.kind !== "ready" || !serves)
        return `${id} of ${process.ref.tenant} is ${running?.state.phase} on ${host.name}, and ${known.phase.kind} to the scheduler`;
    }
  }
  if (processes !== state.instances.size)
    return `${processes} processes live, and the scheduler knows ${state.instances.size} instances`;
  if (processes !== state.live) return `${processes} processes live, and ${state.live} places are taken`;
  if (processes > site.config.maxConcurrent) return `${processes} live, ${site.config.maxConcurrent} allowed`;
  for (const write of site.store.log.values()) {
    if (write.kind !== "placement" || state.instances.has(write.ref.id)) continue;
    // What is owed a successor, and has no place for it yet, is to be known to the next leader.
    const { id, tenant } = write.ref;
    if (!state.tenants.get(tenant)?.owed?.has(id))
      return `the placement of ${id} of ${tenant} is persisted, and it is gone`;
  }
  return undefined;
}

function tenants(site: Site): string | undefined {
  const { state } = site.leader!.core;
  for (const [key, wish] of site.wishes) {
    if (isUnsure(wish) || key.startsWith("node ")) continue;
    const tenant = state.tenants.get(key);
    if (wish.variant === undefined && tenant) return `${key} was deleted, and is there`;
    if (wish.variant !== undefined && tenant?.newest.spec.env.VARIANT !== String(wish.variant))
      return `${key} was given variant ${wish.variant}, and has ${tenant?.newest.spec.env.VARIANT ?? "no spec"}`;
    const persisted = site.store.log.get(`tenant.${key}`);
    if ((persisted !== undefined) !== (tenant !== undefined))
      return `${key} is in memory or in the log, but not both`;
  }
  return undefined;
}

function gateways(site: Site): string | undefined {
  for (const gateway of site.gateways.values()) {
    if (gateway.table.inFlight > 0) return `${gateway.name} has ${gateway.table.inFlight} requests in flight`;
    for (const [id, instance] of site.leader!.core.state.instances) {
      const standing = gateway.table.get(id)?.standing;
      const asleep = instance.mode !== InstanceMode.ACTIVE;
      const quiescing = instance.phase.kind === "ready" && (instance.phase.attempt || instance.phase.command);
      if (standing !== "open" && !quiescing && !asleep)
        return `${gateway.name} has ${id} as ${standing ?? "unknown"}, which serves`;
    }
    for (const tenant of site.leader!.core.state.tenants.keys()) {
      const route = gateway.table.pick(tenant);
      if (route && !site.hosts.get(route.node)?.processes.has(route.id))
        return `${gateway.name} routes to ${route.id}, which is gone`;
    }
  }
  return undefined;
}

/** Some call about it was not answered, or crossed another. */
function isUnsure({ unsure, pending }: Wish): boolean {
  return unsure || pending > 0;
}
