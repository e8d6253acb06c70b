/** SchedulerService, the part about instances: ensure, touch, stop, restart, and what there is. */
import type { ServiceImpl } from "@connectrpc/connect";
import { principalKey } from "@warren/common/rpc/auth";
import { servesHttp } from "@warren/common/spec-check";
import { fromDuration, toDuration } from "@warren/common/time";
import { Expose, Role } from "@warren/proto/common";
import type { SchedulerService } from "@warren/proto/scheduler";
import { urlOf } from "../core/addresses.ts";
import type { Instance, Moment } from "../core/model.ts";
import { instancesOf, serving } from "../core/model.ts";
import { periodsOf } from "../core/periods.ts";
import { toRpcError } from "../refusals.ts";
import type { Services } from "./context.ts";
import { deadlineOf } from "./deadline.ts";
import { instanceView, modesOf, nodeView } from "./views.ts";

/** How long a node may take to be emptied, where the call says nothing, in ms. */
const drainNodeMs = 600_000;

export function instanceRpcs({ engine, epoch, version, store }: Services) {
  const { state, config } = engine.core;
  const byTenant = (a: Instance, b: Instance) =>
    a.ref.tenant < b.ref.tenant
      ? -1
      : a.ref.tenant > b.ref.tenant
        ? 1
        : Number(a.ref.generation - b.ref.generation);
  /** The core has just said so; if it is gone within the same turn, the caller may as well ask again. */
  const found = (id: string, tenant: string): Instance => {
    const instance = state.instances.get(id);
    if (!instance)
      throw toRpcError({ kind: "deadline", tenant, what: "its instance ended at once: ask again" });
    return instance;
  };
  const specOf = (key: string) => {
    const tenant = state.tenants.get(key);
    return tenant && serving(tenant).spec;
  };
  const cordon = async (node: string, cordoned: boolean) => {
    await engine.ask((call) => ({ type: "cordon", call, node, cordoned }));
    return {};
  };
  return {
    async ensure({ tenant }, context) {
      const isGateway = context.values.get(principalKey)?.role === Role.GATEWAY;
      const spec = specOf(tenant);
      // A visitor who guesses the name of a worker neither starts nor reaches it.
      if (isGateway && spec && !servesHttp(spec)) throw toRpcError({ kind: "no-http", tenant });
      const answer = await engine.ensure(tenant, deadlineOf(context, engine.now()), context.signal);
      const instance = found(answer.instance, tenant);
      const direct = isGateway || specOf(tenant)?.expose === Expose.NODE;
      return {
        url: urlOf(state, tenant),
        endpoint: direct ? instance.endpoint : undefined,
        instance: instance.ref,
        cold: answer.cold,
        version: { epoch, n: BigInt(instance.version) },
      };
    },
    touch({ source, instances }) {
      engine.feed({
        type: "touch",
        source,
        entries: instances.map((touched) => ({
          instance: touched.instance,
          idleMs: fromDuration(touched.idleFor, 0),
          inFlight: touched.inFlight,
          seen: touched.seen?.epoch === epoch ? Number(touched.seen.n) : 0,
          sealed: touched.sealed,
        })),
      });
      return { unknown: instances.map(({ instance }) => instance).filter((id) => !state.instances.has(id)) };
    },
    async stop({ tenant }, context) {
      const deadline = deadlineOf(context, engine.now());
      const answer = await engine.ask((call) => ({
        type: "operation",
        call,
        kind: "stop",
        tenant,
        deadline,
      }));
      return { stopped: answer.kind === "stopped" ? [...answer.stopped] : [] };
    },
    async restart({ tenant }, context) {
      const deadline = deadlineOf(context, engine.now());
      const answer = await engine.ask((call) => ({
        type: "operation",
        call,
        kind: "restart",
        tenant,
        deadline,
      }));
      const instance = answer.kind === "ensured" ? found(answer.instance, tenant) : undefined;
      return { url: urlOf(state, tenant), instance: instance?.ref };
    },
    async reload({ tenant }, context) {
      const deadline = deadlineOf(context, engine.now());
      const answer = await engine.ask((call) => ({ type: "reload", call, tenant, deadline }));
      return { instances: answer.kind === "reloaded" ? [...answer.instances] : [] };
    },
    listInstances({ tenant }) {
      const at: Moment = engine.now();
      const listed = tenant ? instancesOf(state, tenant) : state.instances.values();
      return {
        instances: [...listed].sort(byTenant).map((instance) => instanceView(state, config, instance, at)),
      };
    },
    listNodes() {
      const at = engine.now();
      const { late } = periodsOf(config, state.nodes.size);
      return {
        nodes: [...state.nodes.values()]
          .sort((a, b) => (a.name < b.name ? -1 : 1))
          .map((node) => nodeView(late, node, at)),
      };
    },
    cordonNode: ({ node }) => cordon(node, true),
    uncordonNode: ({ node }) => cordon(node, false),
    async drainNode({ node, deadline: within }, context) {
      const at = engine.now();
      const deadline = deadlineOf(context, at);
      const until = at.mono + fromDuration(within, drainNodeMs);
      const answer = await engine.ask((call) => ({ type: "drain", call, node, deadline, until }));
      if (answer.kind !== "drained") return {};
      const { moved, stopped, unsaved } = answer;
      return { moved, stopped, unsavedVolumes: [...unsaved] };
    },
    async forgetNode({ node, force, loseVolumes }) {
      const answer = await engine.ask((call) => ({ type: "forget", call, node, force, loseVolumes }));
      const displaced = answer.kind === "forgotten" ? answer.volumes : [];
      return { volumes: displaced.map(({ tenant, name, backup }) => ({ tenant, name, asOf: backup?.asOf })) };
    },
    getStats() {
      const at = engine.now();
      const up = [...state.nodes.values()].filter((node) => node.confirmed && !node.lost);
      return {
        version,
        cell: config.cell,
        epoch,
        maxConcurrent: config.maxConcurrent,
        live: state.live,
        waiting: state.waiting,
        ...modesOf(state),
        queued: state.queue.size + state.parked.size,
        tenants: state.tenants.size,
        nodesUp: up.length,
        gateways: state.gateways.size,
        store: store.kind,
        uptime: toDuration(at.mono - state.since),
        counts: Object.fromEntries(Object.entries(state.counts).map(([name, n]) => [name, BigInt(n)])),
      };
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}
