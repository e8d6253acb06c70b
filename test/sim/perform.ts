/** Carries out the items of a plan. What they begin ends with them, so that an item can be left out without another. */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import {
  IdlePolicySchema,
  InstancesSchema,
  ReloadPolicySchema,
  StopPolicySchema,
  TenantSpecSchema,
  UsageLimitSchema,
  UsageMeter,
  UsagePeriod,
} from "@warren/proto/common";
import type { Input } from "@warren/scheduler/core/inputs";
import type { Actor } from "./actor.ts";
import type { Item, Place, Wants } from "./plan.ts";
import type { Site, Wish } from "./site.ts";
import { availabilityOf } from "./site.ts";

const dailyLimit = create(UsageLimitSchema, {
  meter: UsageMeter.CPU_SECONDS,
  period: UsagePeriod.DAY,
  max: 1n,
});

export function perform(site: Site, item: Item): void {
  const { agenda } = site;
  switch (item.kind) {
    case "apply":
      apply(site, `t${item.tenant}`, item.variant, item.wants);
      return;
    case "delete": {
      const key = `t${item.tenant}`;
      const settled = wish(site, key, (known) => {
        known.variant = undefined;
      });
      operation(site, "delete", key, item.withinMs, settled);
      return;
    }
    case "ensure":
      ensure(site, `t${item.tenant}`, item.withinMs, item.cancelAfterMs);
      return;
    case "request": {
      const gateway = site.gateways.get(`g${item.gateway}`)!;
      gateway.request(`t${item.tenant}`, item.ms, (how) => {
        site.served[how]++;
      });
      return;
    }
    case "stop":
    case "restart":
      operation(site, item.kind, `t${item.tenant}`, item.withinMs, () => {});
      return;
    case "reload": {
      const key = `t${item.tenant}`;
      site.changed.add(key);
      const make = (call: string, deadline: number): Input => ({
        type: "reload",
        call,
        tenant: key,
        deadline,
      });
      ask(site, item.withinMs, make, () => {});
      return;
    }
    case "drain":
      drain(site, `n${item.node}`, item.withinMs, item.ms);
      return;
    case "clear-backoff":
      site.leader?.deliver(() => site.leader?.feed({ type: "clear-backoff", tenant: `t${item.tenant}` }));
      return;
    case "limit":
      reachLimit(site, `t${item.tenant}`, item.ms);
      return;
    case "cordon": {
      const node = `n${item.node}`;
      cordon(site, node, true);
      agenda.after(item.ms, () => cordon(site, node, false));
      return;
    }
    case "behaviour": {
      const key = `t${item.tenant}`;
      site.behaviours.set(key, item.behaviour);
      agenda.after(item.ms, () => site.behaviours.delete(key));
      return;
    }
    case "tenant-death": {
      const all = [...site.hosts.values()].flatMap((host) =>
        [...host.processes.keys()].map((id) => ({ host, id })),
      );
      const one = all[Math.floor(item.pick * all.length)];
      if (one) site.dies(one.host, one.id, 1);
      return;
    }
    case "agent-crash":
      agentCrash(site, `n${item.node}`, item.ms);
      return;
    case "agent-pause": {
      const name = `n${item.node}`;
      site.truth.blind(site.hosts.get(name)!, item.ms);
      pause(site, site.agents.get(name)!, item.ms);
      return;
    }
    case "power-off":
      powerOff(site, `n${item.node}`, item.ms, item.forget);
      return;
    case "slow-node": {
      const agent = site.agents.get(`n${item.node}`)!;
      const { factor } = item;
      agent.slowness = Math.max(agent.slowness, factor);
      site.truth.slowed(agent.host, factor);
      agenda.after(item.ms, () => {
        if (agent.slowness === factor) agent.slowness = 1;
      });
      return;
    }
    case "scheduler-crash":
      if (site.leader) site.kill(site.leader, item.ms);
      return;
    case "scheduler-pause":
      if (site.leader) pause(site, site.leader, item.ms);
      return;
    case "failover":
      failover(site, item.stoppedMs, item.staysMs);
      return;
    case "gateway-crash": {
      const gateway = site.gateways.get(`g${item.gateway}`)!;
      if (!gateway.up) return;
      gateway.crash();
      site.net.died(gateway);
      agenda.after(item.ms, () => gateway.start());
      return;
    }
    case "gateway-pause":
      pause(site, site.gateways.get(`g${item.gateway}`)!, item.ms);
      return;
    case "partition":
      partition(site, item.a, item.b, item.ways, item.ms);
      return;
    case "storm": {
      const { lost, doubled, late, lateMs } = item;
      site.net.storm({ lost, doubled, late, lateMs }, item.ms);
      return;
    }
    case "store-outage":
      site.store.up = false;
      agenda.after(item.ms, () => {
        site.store.up = true;
      });
      return;
    case "store-slow":
      site.store.slowMs = item.slowMs;
      agenda.after(item.ms, () => {
        site.store.slowMs = 0;
      });
      return;
    case "clock-step":
      site.wallOffset += item.byMs;
      return;
    default:
      item satisfies never;
  }
}

export function apply(site: Site, key: string, variant: number, wants: Wants): void {
  const { config } = site;
  const { freezeMs, stopMs, min, max, keepWarm, priority, restart, batch, stopFirst } = wants;
  const most = config.maxConcurrent;
  if (site.wishes.has(key)) site.changed.add(key);
  const spec = create(TenantSpecSchema, {
    key,
    source: { case: "directory", value: "/app" },
    env: { VARIANT: String(variant) },
    availability: availabilityOf(key),
    stop: create(StopPolicySchema, { drain: toDuration(config.drainMs), grace: toDuration(config.graceMs) }),
    idle: create(IdlePolicySchema, {
      stopAfter: stopMs > 0 && !keepWarm ? toDuration(stopMs) : undefined,
      freezeAfter: freezeMs > 0 && !keepWarm ? toDuration(freezeMs) : undefined,
      keepWarm,
    }),
    instances: create(InstancesSchema, { min: Math.min(min, most), max: Math.min(max, most) }),
    priority,
    restart,
    reload: create(ReloadPolicySchema, { batch, stopFirst }),
    usageLimits: [dailyLimit],
  });
  const settled = wish(site, key, (known) => {
    known.variant = variant;
  });
  ask(site, 0, (call) => ({ type: "apply", call, spec }), settled);
}

/** The ledger finds that the tenant has used what every spec here allows; the period is over after `ms`. */
function reachLimit(site: Site, tenant: string, ms: number): void {
  const { leader } = site;
  leader?.deliver(() => {
    const until = leader.at().wall + ms;
    leader.feed({ type: "limits-reached", reached: [{ tenant, limit: dailyLimit, used: 1n, until }] });
  });
}

function drain(site: Site, node: string, withinMs: number, ms: number): void {
  const { leader } = site;
  site.drained.add(node);
  if (!leader) return;
  const settled = wish(site, `node ${node}`, (known) => {
    known.variant = 1;
  });
  const until = leader.at().mono + ms;
  const make = (call: string, deadline: number): Input => ({ type: "drain", call, node, deadline, until });
  // Refused or late, it may be cordoned all the same.
  ask(site, withinMs, make, settled);
  site.agenda.after(ms, () => cordon(site, node, false));
}

/** @param done with whether it was granted, refused, or nobody knows */
function operation(
  site: Site,
  kind: "stop" | "restart" | "delete",
  tenant: string,
  withinMs: number,
  done: (granted: boolean | undefined) => void,
): void {
  ask(
    site,
    withinMs,
    (call, deadline) => ({ type: "operation", call, kind, tenant, deadline }),
    // A refused delete may go on.
    (granted) => done(granted === false ? undefined : granted),
  );
}

/** Asks the leader; its answer may be broken off with it. */
function ask(
  site: Site,
  withinMs: number,
  make: (call: string, deadline: number) => Input,
  done: (granted: boolean | undefined) => void,
): void {
  const { leader } = site;
  if (!leader) {
    done(undefined);
    return;
  }
  leader.deliver(() => {
    const deadline = leader.at().mono + withinMs;
    leader.ask(
      (call) => make(call, deadline),
      withinMs,
      (outcome) => done("answer" in outcome),
    );
  });
}

function ensure(site: Site, tenant: string, withinMs: number, cancelAfterMs: number): void {
  const { leader } = site;
  leader?.deliver(() => {
    const call = leader.ensure(tenant, withinMs, () => {});
    if (cancelAfterMs > 0 && cancelAfterMs < withinMs)
      leader.after(cancelAfterMs, () => leader.cancel(call, tenant));
  });
}

/** Keeps book of what the user may count on. @returns takes the outcome of the call */
function wish(
  site: Site,
  key: string,
  change: (known: Wish) => void,
): (granted: boolean | undefined) => void {
  const known = site.wishes.get(key) ?? { variant: undefined, unsure: false, pending: 0 };
  site.wishes.set(key, known);
  if (known.pending > 0) known.unsure = true;
  known.pending++;
  return (granted) => {
    known.pending--;
    if (granted) change(known);
    else known.unsure = true;
  };
}

export function cordon(site: Site, node: string, cordoned: boolean): void {
  const settled = wish(site, `node ${node}`, (known) => {
    known.variant = cordoned ? 1 : undefined;
  });
  ask(site, 0, (call) => ({ type: "cordon", call, node, cordoned }), settled);
}

export function pause(site: Site, actor: Actor, ms: number): void {
  if (!actor.up || actor.stopped) return;
  actor.pause();
  site.net.trouble(actor);
  site.agenda.after(ms, () => actor.resume());
}

function agentCrash(site: Site, name: string, ms: number): void {
  const agent = site.agents.get(name)!;
  if (!agent.up) return;
  const host = site.hosts.get(name)!;
  site.truth.blind(host, ms);
  agent.crash();
  site.net.died(agent);
  site.agenda.after(ms, () => {
    if (host.powered && !agent.up) agent.start();
  });
}

function powerOff(site: Site, name: string, ms: number, forget: boolean): void {
  const agent = site.agents.get(name)!;
  const host = site.hosts.get(name)!;
  if (!host.powered) return;
  host.powered = false;
  site.truth.diskLost(host);
  agent.crash();
  site.net.died(agent);
  for (const id of [...host.processes.keys()]) site.end(host, id);
  // What was wanted of it before goes with it.
  if (forget) {
    wish(site, `node ${name}`, () => {})(undefined);
    ask(
      site,
      0,
      (call) => ({ type: "forget", call, node: name, force: true }),
      () => {},
    );
  }
  site.agenda.after(ms, () => {
    host.reboot();
    agent.start();
  });
}

function failover(site: Site, stoppedMs: number, staysMs: number): void {
  const { leader } = site;
  if (!leader || !site.store.up) return;
  if (stoppedMs > 0) pause(site, leader, stoppedMs);
  site.elect();
  // Its lease is over after a while by its own clock, if nobody tells it before.
  site.agenda.after(Math.max(stoppedMs, staysMs), () => {
    if (leader.up) leader.depose("its lease was not renewed");
  });
}

function partition(site: Site, a: Place, b: Place, ways: "there" | "back" | "both", ms: number): void {
  const from = actorAt(site, a);
  const to = actorAt(site, b);
  if (!from || !to || from === to) return;
  const links: [Actor, Actor][] = [];
  if (ways !== "back") links.push([from, to]);
  if (ways !== "there") links.push([to, from]);
  for (const [x, y] of links) site.net.block(x, y);
  site.agenda.after(ms, () => {
    for (const [x, y] of links) site.net.unblock(x, y);
  });
}

function actorAt(site: Site, place: Place): Actor | undefined {
  if (place === "scheduler") return site.leader;
  return "node" in place ? site.agents.get(`n${place.node}`) : site.gateways.get(`g${place.gateway}`);
}
