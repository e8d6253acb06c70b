/** What gateways are told: where instances answer, in versions `(epoch, n)`. */
import { create } from "@bufbuild/protobuf";
import { InstanceMode } from "@warren/proto/common";
import { EndpointVersionSchema, type TenantEndpoint, TenantEndpointSchema } from "@warren/proto/scheduler";
import type { Context } from "./context.ts";
import { type Instance, instancesOn, type Node } from "./model.ts";

/** Whether gateways may know of it: it is ready, not withdrawn, and not given up with its node. */
export function routable(instance: Instance): boolean {
  return instance.phase.kind === "ready" && !instance.lost && instance.endpoint !== undefined;
}

export function endpointOf(ctx: Context, instance: Instance): TenantEndpoint {
  const { phase, mode } = instance;
  // Until it is known to be frozen, what is on its way to sleep stays sealed.
  const quiescing = phase.kind === "ready" && (phase.attempt || phase.command?.kind === "freeze");
  const asleep = mode === InstanceMode.FROZEN || mode === InstanceMode.PAGED_OUT;
  return create(TenantEndpointSchema, {
    instance: instance.ref,
    endpoint: instance.endpoint,
    mode: quiescing ? InstanceMode.QUIESCING : asleep ? InstanceMode.FROZEN : InstanceMode.ACTIVE,
    version: create(EndpointVersionSchema, { epoch: ctx.state.epoch, n: BigInt(instance.version) }),
  });
}

/** Tells all watchers of a new or changed endpoint; of what is given up with its node they have been told. */
export function publish(ctx: Context, instance: Instance): void {
  if (instance.lost) return;
  instance.version = ++ctx.state.n;
  tellAll(ctx, [endpointOf(ctx, instance)], []);
}

/** Tells all watchers that an instance takes nothing new. */
export function withdraw(ctx: Context, instance: Instance): void {
  instance.version = ++ctx.state.n;
  tellAll(ctx, [], [instance.ref.id]);
}

function tellAll(ctx: Context, endpoints: TenantEndpoint[], withdrawn: string[]): void {
  ctx.emit({ type: "endpoints", message: { update: "incremental", n: ctx.state.n, endpoints, withdrawn } });
}

/** All endpoints of one node, to one watcher or to all. */
export function complete(ctx: Context, node: Node, to?: string): void {
  const endpoints: TenantEndpoint[] = [];
  for (const instance of instancesOn(ctx.state, node)) {
    if (routable(instance)) endpoints.push(endpointOf(ctx, instance));
  }
  ctx.emit({
    type: "endpoints",
    to,
    message: { update: "complete", node: node.name, n: ctx.state.n, endpoints, agentUrl: node.agentUrl },
  });
}

/**
 * A watcher came: it is told of every node that has spoken or is given up; of the others once they are. A gateway,
 * unlike a mere onlooker, must from now on confirm before an instance is put away.
 */
export function watcherCame(
  ctx: Context,
  watcher: string,
  gateway: { readonly publicUrl: string } | undefined,
): void {
  if (gateway) {
    const watches = (ctx.state.gateways.get(watcher)?.watches ?? 0) + 1;
    ctx.state.gateways.set(watcher, {
      watches,
      goneAt: Number.POSITIVE_INFINITY,
      publicUrl: gateway.publicUrl,
    });
  }
  for (const node of ctx.state.nodes.values()) if (node.confirmed || node.lost) complete(ctx, node, watcher);
}

/** A gateway went: its requests in flight are believed in for a while, since its connections may well go on. */
export function gatewayWent(ctx: Context, gateway: string): void {
  const known = ctx.state.gateways.get(gateway);
  if (!known) return;
  known.watches--;
  if (known.watches <= 0) known.goneAt = ctx.at.mono;
}

/** Gateways that have been away for too long to have anything in flight. */
export function forgetGateways(ctx: Context): void {
  const { state, at, config } = ctx;
  const gone = new Set<string>();
  for (const [id, gateway] of state.gateways) {
    if (gateway.watches > 0 || at.mono - gateway.goneAt < config.gatewayGoneMs) continue;
    state.gateways.delete(id);
    gone.add(id);
  }
  if (gone.size === 0) return;
  // Once for all of them: a partition takes many.
  for (const { tellers } of state.instances.values()) {
    for (const id of tellers.keys()) if (gone.has(id)) tellers.delete(id);
  }
}
