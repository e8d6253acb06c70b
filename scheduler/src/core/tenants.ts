/** Tenants come, change and go; each change counts only once it is persisted. */
import { create } from "@bufbuild/protobuf";
import { ReleaseDeployedSchema, RestartPolicy, type TenantSpec } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { clearFailures } from "./failures.ts";
import type { TenantRecord } from "./inputs.ts";
import type { Tenant } from "./model.ts";
import type { Refusal } from "./refusal.ts";

export function apply(ctx: Context, call: string, spec: TenantSpec): void {
  const { state, at } = ctx;
  const known = state.tenants.get(spec.key);
  const refusal = unfit(ctx, spec, known);
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  const record: TenantRecord = {
    spec,
    version: ++state.specs,
    createdAt: known?.createdAt ?? at.wall,
    updatedAt: at.wall,
  };
  ctx.emit({
    type: "persist",
    write: { kind: "tenant", record },
    durable: { type: "apply-durable", call, record },
    failed: { type: "not-durable", call, tenant: spec.key, message: "the store did not take the spec" },
  });
}

function unfit({ state, config }: Context, spec: TenantSpec, known: Tenant | undefined): Refusal | undefined {
  if (known?.deleting) return { kind: "deleting", tenant: spec.key };
  if (!known && state.tenants.size >= config.maxTenants) {
    return { kind: "too-many", what: "tenants", limit: config.maxTenants };
  }
  if (spec.source.case === "release" && !state.releases.has(spec.source.value)) {
    return { kind: "no-release", digest: spec.source.value };
  }
  const field = notImplemented(spec);
  return field ? { kind: "not-implemented", field } : undefined;
}

/** A wish that this version would not honour is refused, rather than forgotten. */
function notImplemented(spec: TenantSpec): string | undefined {
  if (spec.restart > RestartPolicy.NEVER) return "restart";
  const { min = 0, max = 0, sharePort = false } = spec.instances ?? {};
  if (min > 0 || max > 1 || sharePort) return "instances";
  return undefined;
}

export function applied(ctx: Context, call: string, record: TenantRecord): void {
  const { spec } = record;
  const before = install(ctx, record);
  ctx.emit({ type: "answer", call, answer: { kind: "done" } });
  const release = spec.source.case === "release" ? spec.source.value : "";
  if (release === "" || release === before) return;
  ctx.emit({
    type: "event",
    tenant: spec.key,
    payload: {
      case: "release",
      value: create(ReleaseDeployedSchema, { tenant: spec.key, release, previous: before }),
    },
  });
}

/** Makes the record the tenant's truth; answers the release it had before. */
export function install(ctx: Context, { spec, version, createdAt, updatedAt }: TenantRecord): string {
  const { state } = ctx;
  state.specs = Math.max(state.specs, version);
  const known = state.tenants.get(spec.key);
  if (!known) {
    state.tenants.set(spec.key, {
      key: spec.key,
      spec,
      version,
      createdAt,
      updatedAt,
      deleting: false,
      avoid: new Map(),
      failures: 0,
      backoffUntil: 0,
    });
    return "";
  }
  if (version < known.version) return ""; // a later apply was persisted first
  const before = known.spec.source.case === "release" ? known.spec.source.value : "";
  known.spec = spec;
  known.version = version;
  known.updatedAt = updatedAt;
  clearFailures(known); // a new spec deserves a new try
  known.nowhere = undefined;
  return before;
}

export function deleted(ctx: Context, call: string | undefined, key: string): void {
  ctx.state.tenants.delete(key);
  ctx.state.queue.delete(key);
  if (call) ctx.emit({ type: "answer", call, answer: { kind: "done" } });
}

export function notDurable(ctx: Context, call: string | undefined, key: string, message: string): void {
  const tenant = ctx.state.tenants.get(key);
  if (tenant) tenant.deleting = false;
  if (call) ctx.emit({ type: "refuse", call, refusal: { kind: "store-down", message } });
}
