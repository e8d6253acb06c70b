/** Tenants come, change and go; each change counts only once it is persisted. */
import { create, equals } from "@bufbuild/protobuf";
import { neededRung } from "@warren/common/isolation";
import { specProblem } from "@warren/common/spec-check";
import { filesProblem } from "@warren/common/tenant-files";
import { ReleaseDeployedSchema, type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { wish } from "./desire.ts";
import { forgetLimits, reopen } from "./enforce.ts";
import { clearFailures } from "./failures.ts";
import type { Input, TenantRecord } from "./inputs.ts";
import { watchLimits } from "./limits.ts";
import { type Revision, serving, standingOf, type Tenant } from "./model.ts";
import { settleDeletes } from "./operations.ts";
import type { Refusal } from "./refusal.ts";
import { isRunning, startRollout } from "./rollout.ts";
import { rescale } from "./scale.ts";
import { isTimeZone } from "./sleep-times.ts";
import { isOvertaken } from "./tenant-record.ts";

/** @param expected the version that the caller has seen */
export function apply(ctx: Context, call: string, spec: TenantSpec, expected?: number): void {
  const { state, at } = ctx;
  const known = state.tenants.get(spec.key);
  const refusal = unfit(ctx, spec, known);
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  if (known && !known.rejected && !isOvertaken(known) && equals(TenantSpecSchema, known.newest.spec, spec)) {
    ctx.emit({ type: "answer", call, answer: { kind: "done" } }); // as it stands already
    return;
  }
  // After the line above: a call that is made again, its answer having been lost, has changed it itself.
  const version = known ? versionSeen(known) : 0;
  if (expected !== undefined && expected !== version) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "changed", tenant: spec.key, expected, version } });
    return;
  }
  const record: TenantRecord = {
    ...revised(ctx, spec, known),
    createdAt: known?.createdAt ?? at.wall,
    updatedAt: at.wall,
  };
  if (known) known.offered = record.version;
  ctx.emit({
    type: "persist",
    write: { kind: "tenant", record },
    durable: { type: "apply-durable", call, record },
    failed: {
      type: "not-durable",
      call,
      message: "the store did not take the spec",
      tenant: spec.key,
      version: record.version,
    },
  });
}

/** The new spec's version, from which on processes are like its own, and what a rollback leads to. */
function revised(
  ctx: Context,
  spec: TenantSpec,
  known: Tenant | undefined,
): Revision & Pick<TenantRecord, "previous"> {
  const version = ++ctx.state.specs;
  if (!known) return { spec, version, since: version };
  const before = serving(known);
  // What was rejected left no trace, unless it is being rolled back right now.
  const clean =
    !isOvertaken(known) &&
    (!known.rejected ||
      (!isRunning(known.rollout) &&
        standingOf(ctx.state, known.key).every(({ ref }) => Number(ref.specVersion) <= before.version)));
  const alike = clean && processOf(before.spec) === processOf(spec);
  return {
    spec,
    version,
    since: alike ? before.since : version,
    // A change of policy is nothing to roll back.
    previous: alike && !known.rejected ? known.previous : before,
  };
}

/** What of a spec makes its processes what they are, as a text to compare; the rest is policy, and holds at once. */
function processOf(spec: TenantSpec): string {
  const { source, command, env, limits, isolation, readiness, instances, writable } = spec;
  // How a volume is backed up is policy.
  const volumes = spec.volumes.map(({ name, path, sizeBytes }) => ({ name, path, sizeBytes }));
  const plain = create(TenantSpecSchema, {
    source,
    command,
    limits,
    isolation,
    readiness,
    writable,
    volumes,
  });
  const names = Object.keys(env).sort();
  return JSON.stringify(
    [plain, names.map((name) => [name, env[name]]), instances?.sharePort ?? false],
    (_, value) => (typeof value === "bigint" ? `${value}` : value),
  );
}

function unfit({ state, config }: Context, spec: TenantSpec, known: Tenant | undefined): Refusal | undefined {
  if (known?.deleting) return { kind: "deleting", tenant: spec.key };
  if (!known && state.tenants.size >= config.maxTenants) {
    return { kind: "too-many", what: "tenants", limit: config.maxTenants };
  }
  if (spec.source.case === "release" && !state.releases.has(spec.source.value)) {
    return { kind: "no-release", digest: spec.source.value };
  }
  // What was let in by an older version can still be rolled back to.
  const problem = spec === known?.previous?.spec ? undefined : specProblem(spec);
  if (problem) return { kind: "bad-spec", ...problem };
  const files = filesProblem(spec, neededRung(spec));
  if (files) return { kind: "bad-spec", ...files };
  const most = Math.max(spec.instances?.min ?? 0, spec.instances?.max ?? 0);
  if (most > config.maxConcurrent) {
    const message = `it asks for ${most}, and the whole cluster may have ${config.maxConcurrent} (maxConcurrent)`;
    return { kind: "bad-spec", field: "instances", message };
  }
  if (spec.instances?.sharePort) {
    // The kernel deals out connections: one that is quiet by all gateways' word may get the next request all the same.
    const message =
      "the scheduler cannot drain or freeze one of several instances behind a port they share (rule 3): leave it out, the gateway spreads requests over their own ports";
    return { kind: "bad-spec", field: "instances.share_port", message };
  }
  if (
    spec.usageLimits.length > 0 &&
    !state.limited.has(spec.key) &&
    state.limited.size >= config.maxLimited
  ) {
    return { kind: "too-many", what: "tenants with usage limits", limit: config.maxLimited };
  }
  const zone = spec.idle?.warm.find(({ timeZone }) => !isTimeZone(timeZone))?.timeZone;
  if (zone !== undefined) {
    const message = `there is no time zone ${zone}: give an IANA name such as Europe/Vienna, or none for UTC`;
    return { kind: "bad-spec", field: "idle.warm.time_zone", message };
  }
  return undefined;
}

export function applied(ctx: Context, call: string, record: TenantRecord): void {
  const { spec } = record;
  const known = ctx.state.tenants.get(spec.key);
  const before = known && serving(known);
  const stands = install(ctx, record);
  ctx.emit({ type: "answer", call, answer: { kind: "done" } });
  if (!stands) return;
  const tenant = ctx.state.tenants.get(spec.key)!;
  deployed(ctx, tenant, before);
  // Deploying to a live tenant is a reload.
  if (before && tenant.newest.since === tenant.newest.version && spec.source.case !== undefined) {
    startRollout(ctx, tenant, { all: false, from: before });
  }
  reopen(ctx, tenant);
  wish(ctx, tenant);
  rescale(ctx, tenant);
}

function deployed(ctx: Context, { key, newest }: Tenant, before: Revision | undefined): void {
  const digest = (revision: Revision | undefined) =>
    revision?.spec.source.case === "release" ? revision.spec.source.value : "";
  const [release, previous] = [digest(newest), digest(before)];
  if (release === "" || release === previous) return;
  const value = create(ReleaseDeployedSchema, { tenant: key, release, previous });
  ctx.emit({ type: "event", tenant: key, payload: { case: "release", value } });
}

/** Makes the record the tenant's truth. @returns false if a later apply was persisted first */
export function install(ctx: Context, record: TenantRecord): boolean {
  const { state } = ctx;
  const { spec, version, since = version, previous, rejected = false, createdAt, updatedAt } = record;
  state.specs = Math.max(state.specs, version);
  const newest: Revision = { spec, version, since };
  const known = state.tenants.get(spec.key);
  if (!known || version >= known.newest.version) watchLimits(state, spec.key, spec.usageLimits);
  if (!known) {
    state.tenants.set(spec.key, {
      key: spec.key,
      newest,
      offered: version,
      previous,
      rejected,
      createdAt,
      updatedAt,
      deleting: false,
      scale: 0,
      paused: false,
      failures: 0,
      backoffUntil: 0,
      armedAt: Number.POSITIVE_INFINITY,
    });
    return true;
  }
  if (version < known.newest.version) return false;
  known.newest = newest;
  known.previous = previous;
  known.rejected = rejected;
  known.updatedAt = updatedAt;
  known.paused = false;
  clearFailures(known); // a new spec deserves a new try
  known.nowhere = undefined;
  known.unfitFor = undefined;
  state.parked.delete(spec.key); // likewise of nodes
  return true;
}

export function deleted(ctx: Context, key: string): void {
  if (ctx.state.tenants.get(key)?.limitsKept) forgetLimits(ctx, key);
  ctx.state.tenants.delete(key);
  watchLimits(ctx.state, key, []);
  ctx.state.queue.delete(key);
  ctx.state.parked.delete(key);
  settleDeletes(ctx, key);
}

export function deleteFailed(ctx: Context, key: string, message: string): void {
  const tenant = ctx.state.tenants.get(key);
  if (tenant) tenant.deleting = false;
  settleDeletes(ctx, key, { kind: "store-down", message });
}

/** The version of the newest spec that an edit has to know: of one on its way, too, unless nobody may count on it. */
function versionSeen({ offered, inDoubt, newest }: Tenant): number {
  return offered === inDoubt ? newest.version : Math.max(offered, newest.version);
}

export function notDurable(
  ctx: Context,
  { call, message, tenant: key, version }: Extract<Input, { type: "not-durable" }>,
): void {
  const tenant = key === undefined ? undefined : ctx.state.tenants.get(key);
  if (tenant && tenant.offered === version) tenant.inDoubt = version;
  ctx.emit({ type: "refuse", call, refusal: { kind: "store-down", message } });
}
