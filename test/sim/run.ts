/** One simulation from its plan to its end. */
import { RestartPolicy } from "@warren/proto/common";
import { Core } from "@warren/scheduler/core/core";
import { convergeMs, probeMs, unsettled } from "./converge.ts";
import { apply, cordon, perform } from "./perform.ts";
import { type Item, isFault, type Plan, type Wants } from "./plan.ts";
import type { MakeCore } from "./scheduler.ts";
import { Site } from "./site.ts";
import { Violation } from "./truth.ts";

export interface Result {
  readonly steps: number;
  /** Faults injected, by kind. */
  readonly faults: Readonly<Record<string, number>>;
  /** Virtual time from the last fault until everything had converged, ms. */
  readonly convergedMs: number;
  readonly virtualMs: number;
  readonly violation?: Violation;
  readonly site: Site;
}

export interface RunOptions {
  readonly makeCore?: MakeCore;
  readonly onTrace?: (at: number, line: string) => void;
  /** Gives up without a verdict once so many steps are done: to bound a mutant that runs wild. */
  readonly maxSteps?: number;
}

export const productionCore: MakeCore = (options) => new Core(options);

export function run(plan: Plan, options: RunOptions = {}): Result {
  const { makeCore = productionCore, onTrace, maxSteps = Number.POSITIVE_INFINITY } = options;
  const site = new Site(plan.setup, makeCore, onTrace);
  const faults: Record<string, number> = {};
  const { agenda } = site;
  for (const item of plan.items) agenda.after(item.at, () => begin(item));
  const begin = (item: Item): void => {
    if (isFault(item)) faults[item.kind] = (faults[item.kind] ?? 0) + 1;
    if (onTrace) onTrace(agenda.now, `# ${JSON.stringify(item)}`);
    perform(site, item);
  };
  const enough = () => site.steps >= maxSteps;
  let convergedMs = 0;
  let violation: Violation | undefined;
  try {
    agenda.runUntil(plan.endsAt, enough);
    convergedMs = settle(site, lastHeal(plan), enough);
    if (!enough()) probe(site, enough);
    settle(site, agenda.now, enough);
    if (!enough()) site.truth.checkBills();
  } catch (error) {
    violation =
      error instanceof Violation ? error : new Violation("crash", (error as Error).stack ?? String(error));
  }
  return { steps: site.steps, faults, convergedMs, virtualMs: agenda.now, violation, site };
}

/** When the last of what the items began is over. */
function lastHeal({ items, endsAt }: Plan): number {
  let last = endsAt;
  for (const item of items) {
    const ms = "ms" in item ? item.ms : 0;
    const stays = item.kind === "failover" ? Math.max(item.stoppedMs, item.staysMs) : 0;
    last = Math.max(last, item.at + Math.max(ms, stays));
  }
  return last;
}

function settle(site: Site, from: number, enough: () => boolean): number {
  const { agenda } = site;
  agenda.runUntil(from, enough);
  for (;;) {
    const why = unsettled(site);
    if (why === undefined || enough()) return agenda.now - from;
    if (agenda.now - from > convergeMs) {
      throw new Violation("convergence", `${Math.round(agenda.now - from)} ms after the last fault ${why}`);
    }
    agenda.runUntil(agenda.now + 250, enough);
  }
}

/** Every tenant is asked for by a request, one after the other, and must be there. */
function probe(site: Site, enough: () => boolean): void {
  const { agenda, setup } = site;
  for (const { name, cordoned } of site.leader?.core.state.roster ?? [])
    if (cordoned) cordon(site, name, false);
  // With nothing kept at all times there is room for each, and what a new spec was refused for is forgiven.
  for (let i = 0; i < setup.tenants; i++) apply(site, `t${i}`, -1, plain);
  settle(site, agenda.now, enough);
  for (let i = 0; i < setup.tenants && i < mostProbed && !enough(); i++) {
    let served = "";
    const gateway = [...site.gateways.values()][i % site.gateways.size]!;
    gateway.request(`t${i}`, 5, (how) => {
      served = how;
    });
    const until = agenda.now + probeMs;
    while (served === "" && agenda.now < until && !enough()) agenda.runUntil(agenda.now + 50, enough);
    if (served === "served" || enough()) continue;
    const how = served || `not answered within ${probeMs} ms`;
    throw new Violation("convergence", `a request for t${i} after all faults was ${how}`);
  }
}

const mostProbed = 30;

const plain: Wants = {
  freezeMs: 0,
  stopMs: 0,
  min: 0,
  max: 0,
  priority: 0,
  restart: RestartPolicy.UNSPECIFIED,
  batch: 0,
  // Where there is no place for a second instance, a reload would fail.
  stopFirst: true,
  keepWarm: false,
};
