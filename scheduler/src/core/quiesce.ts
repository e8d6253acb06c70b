/**
 * Putting an idle instance away without cutting a request (rule 3). The endpoint is published as QUIESCING; every
 * gateway that has nothing in flight seals it (sends it nothing more without Ensure) and says so; only when all have,
 * does the stop go on. A request in flight, an Ensure or the deadline gives the attempt up.
 */
import type { ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { publish } from "./endpoints.ts";
import type { TouchEntry } from "./inputs.ts";
import { commandStop } from "./life.ts";
import type { Instance, Teller } from "./model.ts";

export function beginQuiesce(ctx: Context, instance: Instance, reason: ExitReason): void {
  if (instance.phase.kind !== "ready") return;
  instance.phase.quiescing = { reason, until: ctx.at.mono + ctx.config.quiesceMs };
  publish(ctx, instance);
  settleQuiet(ctx, instance);
}

export function cancelQuiesce(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready" || !instance.phase.quiescing) return;
  instance.phase.quiescing = undefined;
  instance.notBefore = ctx.at.mono + ctx.config.quiesceAgainMs;
  count(ctx, "quiesce_cancelled");
  publish(ctx, instance);
}

/** Goes on with a quiescing or draining instance if every gateway has confirmed its version. */
export function settleQuiet(ctx: Context, instance: Instance): void {
  const { phase } = instance;
  const reason =
    phase.kind === "ready" ? phase.quiescing?.reason : phase.kind === "draining" ? phase.reason : undefined;
  if (reason === undefined) return;
  for (const gateway of ctx.state.gateways.keys()) {
    const teller = instance.tellers.get(gateway);
    if ((teller?.sealed ?? 0) < instance.version) return;
  }
  commandStop(ctx, instance, reason);
}

/** A gateway, or a client that reaches instances directly, tells of uses. */
export function touch(ctx: Context, source: string, entries: readonly TouchEntry[]): void {
  for (const entry of entries) {
    const instance = ctx.state.instances.get(entry.instance);
    if (!instance) continue;
    const teller = instance.tellers.get(source) ?? { inFlight: 0, sealed: 0, at: 0 };
    teller.inFlight = entry.inFlight;
    teller.at = ctx.at.mono;
    teller.sealed = entry.sealed && entry.inFlight === 0 ? Math.max(teller.sealed, entry.seen) : 0;
    note(ctx, instance, source, teller);
    const used = ctx.at.mono - (entry.inFlight > 0 ? 0 : entry.idleMs);
    instance.lastUsed = Math.max(instance.lastUsed, used);
    if (entry.inFlight > 0) cancelQuiesce(ctx, instance);
    else settleQuiet(ctx, instance);
  }
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
