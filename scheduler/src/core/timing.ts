/** What is due when: each instance and each tenant has at most one timer that counts. */
import type { Context } from "./context.ts";
import type { Instance, Tenant } from "./model.ts";

/** Looks at an instance at `when` (mono) or before; later ones that were armed are forgotten. */
export function armInstance(ctx: Context, instance: Instance, when: number): void {
  if (when >= instance.armedAt || when === Number.POSITIVE_INFINITY) return;
  instance.armedAt = when;
  ctx.state.timers.add({ at: when, kind: "instance", key: instance.ref.id });
}

export function armTenant(ctx: Context, tenant: Tenant, when: number): void {
  if (when >= tenant.armedAt || when === Number.POSITIVE_INFINITY) return;
  tenant.armedAt = when;
  ctx.state.timers.add({ at: when, kind: "tenant", key: tenant.key });
}
