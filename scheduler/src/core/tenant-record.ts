/** A tenant as it is persisted. */
import type { Context } from "./context.ts";
import type { TenantRecord } from "./inputs.ts";
import type { Tenant } from "./model.ts";

export function recordOf({ newest, previous, rejected, createdAt, updatedAt }: Tenant): TenantRecord {
  const { spec, version, since } = newest;
  return { spec, version, since, createdAt, updatedAt, previous, rejected };
}

/** What the core itself has decided of it; a store that is down does not keep that from holding. */
export function persistTenant(ctx: Context, tenant: Tenant): void {
  ctx.emit({ type: "persist", write: { kind: "tenant", record: recordOf(tenant) } });
}
