/** A tenant as it is persisted. */
import type { Context } from "./context.ts";
import type { TenantRecord } from "./inputs.ts";
import type { Tenant } from "./model.ts";

export function recordOf({ newest, previous, rejected, createdAt, updatedAt }: Tenant): TenantRecord {
  const { spec, version, since } = newest;
  return { spec, version, since, createdAt, updatedAt, previous, rejected };
}

/** Another spec is on its way to the store: what stands is not what there will be. */
export function isOvertaken({ offered, newest }: Tenant): boolean {
  return offered > newest.version;
}

/**
 * What the core itself has decided of it; a store that is down does not keep that from holding. Not behind a newer spec,
 * which it would undo, and for which it says nothing.
 */
export function persistTenant(ctx: Context, tenant: Tenant): void {
  if (isOvertaken(tenant)) return;
  ctx.emit({ type: "persist", write: { kind: "tenant", record: recordOf(tenant) } });
}
