/** What a node is charged for the instances on it: what they are predicted to need at their peak. */
import { InstanceMode, type TenantSpec, type Usage } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import type { Context } from "./context.ts";
import { type Instance, serving, type Tenant } from "./model.ts";
import { type Need, Peaks } from "./peaks.ts";

/** For one more instance of a tenant: a default until it has a history, and never more than its limits allow it. */
export function needOf(tenant: Tenant | undefined, config: CoreConfig): Need {
  const unknown = { memory: config.defaultMemoryBytes, cpu: config.defaultCpuMillis };
  const peak = tenant?.peaks?.predicted(unknown) ?? unknown;
  return tenant ? bounded(peak, serving(tenant).spec) : peak;
}

function bounded({ memory, cpu }: Need, { limits }: TenantSpec): Need {
  const atMost = (value: number, limit: number) => (limit > 0 ? Math.min(value, limit) : value);
  return {
    memory: atMost(memory, Number(limits?.memoryBytes ?? 0n)),
    cpu: atMost(cpu, limits?.cpuMillis ?? 0),
  };
}

/** A change of less than this much is not worth the sums. */
const worthwhile = 0.02;

/** Charges its node for an instance as things stand: a sleeping one for what it holds. */
export function recharge(ctx: Context, instance: Instance): void {
  const need = needOf(ctx.state.tenants.get(instance.ref.tenant), ctx.config);
  const asleep = instance.mode === InstanceMode.FROZEN || instance.mode === InstanceMode.PAGED_OUT;
  const held = Number(instance.usage?.memoryBytes ?? 0n);
  charge(ctx, instance, asleep ? { memory: held > 0 ? held : need.memory, cpu: 0 } : need);
}

export function charge(ctx: Context, instance: Instance, { memory, cpu }: Need): void {
  if (instance.lost) return;
  const before = instance.charge;
  const small = (a: number, b: number) => Math.abs(a - b) <= worthwhile * Math.max(a, b);
  if (memory > 0 && small(memory, before.memory) && small(cpu, before.cpu)) return;
  instance.charge = { memory, cpu };
  const node = ctx.state.nodes.get(instance.ref.node);
  if (!node) return;
  node.charged.memory += memory - before.memory;
  node.charged.cpu += cpu - before.cpu;
}

/** An instance's counters came: its tenant's history grows. */
export function observeUsage(ctx: Context, instance: Instance, usage: Usage): void {
  const before = instance.usage;
  if (before && usage.wallMs < before.wallMs) return; // an older report, late
  instance.usage = usage;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (tenant && instance.mode <= InstanceMode.ACTIVE) {
    tenant.peaks ??= new Peaks();
    tenant.peaks.observe(usage, before, ctx.at.mono);
  }
  recharge(ctx, instance);
}
