/**
 * Back-off of one tenant: never shared with another, and known for the whole cluster, so that a broken tenant does not
 * wander from node to node. The first retry is immediate; later ones wait exponentially longer, with jitter. Serving for
 * long enough forgives; failing often within a while, however long it served in between, is a crash loop all the same.
 */
import { create } from "@bufbuild/protobuf";
import { backoff, toDuration } from "@warren/common/time";
import { BackoffStartedSchema, type Exit, ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { limitInTheWay } from "./limits.ts";
import type { Tenant } from "./model.ts";
import type { Refusal } from "./refusal.ts";

const failures: ReadonlySet<ExitReason> = new Set([
  ExitReason.CRASHED,
  ExitReason.READINESS_TIMEOUT,
  ExitReason.OOM_KILLED,
  ExitReason.UNHEALTHY,
  ExitReason.LIMIT,
  ExitReason.UNKNOWN,
]);

/** Whether an end like this is the tenant's own failing. A clean exit is one only if it never served. */
export function isFailure(exit: Exit, served: boolean): boolean {
  return failures.has(exit.reason) || (exit.reason === ExitReason.EXITED_CLEAN && !served);
}

/** @param uptimeMs how long the instance had served; 0 if never */
export function noteEnd(ctx: Context, tenant: Tenant, exit: Exit, uptimeMs: number): void {
  tenant.lastExit = exit;
  if (uptimeMs >= ctx.config.minUptimeMs) {
    tenant.failures = 0;
    tenant.backoffUntil = 0;
  }
  if (!isFailure(exit, uptimeMs > 0)) return;
  // Stopped for what it used in all, not for what this instance did.
  if (exit.reason === ExitReason.LIMIT && limitInTheWay(tenant, ctx.at)) return;
  tenant.failures++;
  count(ctx, "failures");
  const looping = noteInWindow(ctx, tenant);
  if (tenant.failures === 1 && !looping) return;
  const { backoffBaseMs: baseMs, backoffMaxMs: maxMs } = ctx.config;
  const delay = backoff({
    baseMs: looping ? maxMs : baseMs,
    maxMs,
    attempt: Math.max(0, tenant.failures - 2),
    random: ctx.random,
  });
  tenant.backoffUntil = ctx.at.mono + delay;
  count(ctx, looping ? "crash_loops" : "backoffs");
  ctx.emit({
    type: "event",
    tenant: tenant.key,
    payload: {
      case: "backoff",
      value: create(BackoffStartedSchema, {
        tenant: tenant.key,
        failures: tenant.failures,
        delay: toDuration(delay),
        last: exit,
        crashLoop: looping,
      }),
    },
  });
}

/** Whether there have been too many within the sliding window, this one included. */
function noteInWindow({ at, config }: Context, tenant: Tenant): boolean {
  tenant.failedAt = [...(tenant.failedAt ?? []), at.mono].slice(-config.crashLoopFailures);
  return isLooping(tenant, at.mono, config);
}

/** Whether its failures within the window make a crash loop, as things stand. */
export function isLooping(tenant: Tenant, mono: number, config: Context["config"]): boolean {
  const recent = (tenant.failedAt ?? []).filter((when) => mono - when < config.crashLoopWindowMs);
  return recent.length >= config.crashLoopFailures;
}

/** Somebody vouches for it, or it has a new spec: it deserves a new try. */
export function clearFailures(tenant: Tenant): void {
  tenant.failures = 0;
  tenant.backoffUntil = 0;
  tenant.failedAt = undefined;
}

/** Why it is not started now, if it is in back-off. */
export function backingOff(ctx: Context, tenant: Tenant): Refusal | undefined {
  if (tenant.backoffUntil <= ctx.at.mono) return undefined;
  return {
    kind: "backoff",
    tenant: tenant.key,
    delayMs: tenant.backoffUntil - ctx.at.mono,
    failures: tenant.failures,
    exit: tenant.lastExit,
  };
}
