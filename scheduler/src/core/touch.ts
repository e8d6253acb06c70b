/** A gateway, or a client that reaches instances directly, tells of uses. */
import type { Context } from "./context.ts";
import type { TouchEntry } from "./inputs.ts";
import { type Instance, serving, type Teller, type Tenant } from "./model.ts";
import { used } from "./phases.ts";
import { cancelAttempt, settleQuiet } from "./quiesce.ts";
import { rescale } from "./scale.ts";
import { isAsleep } from "./sleep.ts";
import { Gaps } from "./sleep-times.ts";

export function touch(ctx: Context, source: string, entries: readonly TouchEntry[]): void {
  const tenants = new Set<Tenant>();
  for (const entry of entries) {
    const instance = ctx.state.instances.get(entry.instance);
    if (!instance) continue;
    const teller = instance.tellers.get(source) ?? { inFlight: 0, sealed: 0, at: 0 };
    teller.inFlight = entry.inFlight;
    teller.at = ctx.at.mono;
    teller.sealed = entry.sealed && entry.inFlight === 0 ? Math.max(teller.sealed, entry.seen) : 0;
    note(ctx, instance, source, teller);
    const lastUse = ctx.at.mono - (entry.inFlight > 0 ? 0 : entry.idleMs);
    const tenant = ctx.state.tenants.get(instance.ref.tenant);
    if (lastUse > instance.lastUsed) {
      if (tenant && serving(tenant).spec.idle?.adaptive && lastUse - instance.lastUsed >= Gaps.least) {
        tenant.gaps ??= new Gaps();
        tenant.gaps.note(lastUse - instance.lastUsed, ctx.at.mono);
      }
      used(ctx, instance, lastUse);
    }
    if (entry.inFlight > 0) cancelAttempt(ctx, instance);
    else settleQuiet(ctx, instance);
    if (tenant && !isAsleep(instance)) tenants.add(tenant);
  }
  // Once for each, since that looks at all of its instances.
  for (const tenant of tenants) rescale(ctx, tenant);
}

/** Clients that reach an instance directly and say so; a gateway is always noted. */
const mostClients = 256;

/** A client is remembered only for what it has in flight; of too many, the one longest silent is forgotten. */
function note(ctx: Context, instance: Instance, source: string, teller: Teller): void {
  const { tellers } = instance;
  tellers.delete(source);
  const gateway = ctx.state.gateways.has(source);
  if (!gateway && teller.inFlight === 0) return;
  if (tellers.size >= mostClients + ctx.state.gateways.size) {
    const silent = [...tellers.keys()].find((name) => !ctx.state.gateways.has(name));
    if (silent !== undefined) tellers.delete(silent);
  }
  tellers.set(source, teller); // last again: the order of the map is that of telling
}
