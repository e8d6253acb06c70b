/** What a node is charged for the instances on it: what they are predicted to need. */
import { InstanceMode, type TenantSpec, type Usage } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import { type Context, count } from "./context.ts";
import { type Estimate, exactly, limitedTo, minus, nothing, peakOf, plus } from "./estimate.ts";
import { type Instance, type State, serving, type Tenant } from "./model.ts";
import { type Need, Peaks } from "./peaks.ts";

export const noNeed: Need = { memory: nothing, cpu: nothing };

/** Instances are asked for their part in what is expected of unknown ones in so long after their start. */
const youngMs = 60_000;
/** Fewer samples of other tenants' instances say nothing. */
const enough = 5;

/** For one more instance of a tenant: as unknown ones are until it has a history, and never more than its limits allow. */
export function needOf(state: State, tenant: Tenant | undefined, config: CoreConfig): Need {
  const unknown = unknownNeed(state, config);
  const need = tenant?.peaks?.predicted(unknown) ?? unknown;
  return tenant ? bounded(need, serving(tenant).spec) : need;
}

/** What young instances of all tenants were observed to need, once there are enough of them; before that a default. */
function unknownNeed({ young }: State, config: CoreConfig): Need {
  const usual = { memory: exactly(config.defaultMemoryBytes), cpu: exactly(config.defaultCpuMillis) };
  return young.weight < enough ? usual : young.predicted(usual);
}

function bounded({ memory, cpu }: Need, { limits }: TenantSpec): Need {
  const atMost = (value: Estimate, limit: number) => (limit > 0 ? limitedTo(value, limit) : value);
  return {
    memory: atMost(memory, Number(limits?.memoryBytes ?? 0n)),
    cpu: atMost(cpu, limits?.cpuMillis ?? 0),
  };
}

/** A change of less than this much is not worth the sums. */
const worthwhile = 0.02;

/** Charges its node for an instance as things stand: a sleeping one for what it holds. */
export function recharge(ctx: Context, instance: Instance): void {
  const need = needOf(ctx.state, ctx.state.tenants.get(instance.ref.tenant), ctx.config);
  const asleep = instance.mode === InstanceMode.FROZEN || instance.mode === InstanceMode.PAGED_OUT;
  const held = Number(instance.usage?.memoryBytes ?? 0n);
  charge(ctx, instance, asleep ? { memory: held > 0 ? exactly(held) : need.memory, cpu: nothing } : need);
}

export function charge(ctx: Context, instance: Instance, need: Need): void {
  if (instance.lost) return;
  const before = instance.charge;
  if (need.memory.mean > 0 && isNear(need.memory, before.memory) && isNear(need.cpu, before.cpu)) return;
  instance.charge = need;
  const node = ctx.state.nodes.get(instance.ref.node);
  if (!node) return;
  node.charged = {
    memory: plus(minus(node.charged.memory, before.memory), need.memory),
    cpu: plus(minus(node.charged.cpu, before.cpu), need.cpu),
  };
}

function isNear(a: Estimate, b: Estimate): boolean {
  const near = (x: number, y: number) => Math.abs(x - y) <= worthwhile * Math.max(x, y);
  return near(a.mean, b.mean) && near(peakOf(a), peakOf(b));
}

/** What ending it would give back, in bytes; 0 where that is not known. */
export function heldBy({ usage, isUsageStale }: Instance): number {
  return isUsageStale ? 0 : Number(usage?.memoryBytes ?? 0n);
}

/** An instance's counters came: its tenant's history grows, and so does what is known of instances in general. */
export function observeUsage(ctx: Context, instance: Instance, usage: Usage): void {
  const before = instance.usage;
  if (before && usage.wallMs < before.wallMs) return; // an older report, late
  instance.usage = usage;
  instance.isUsageStale = false;
  const { state, at } = ctx;
  // Gateways thaw without a word to the scheduler: only the node knows of all of them.
  if (before) count(ctx, "thaws", Number(usage.thaws - before.thaws));
  const tenant = state.tenants.get(instance.ref.tenant);
  if (tenant && instance.mode <= InstanceMode.ACTIVE) {
    tenant.peaks ??= new Peaks();
    tenant.peaks.observe(usage, before, at.mono);
    if (!before || usage.wallMs < youngMs) state.young.observe(usage, before, at.mono);
  }
  recharge(ctx, instance);
}
