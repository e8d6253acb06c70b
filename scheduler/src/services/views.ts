/** The core's state as the contracts show it. */
import { create } from "@bufbuild/protobuf";
import { servesHttp } from "@warren/common/spec-check";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  type Backoff,
  BackoffSchema,
  InstanceMode,
  InstanceSchema,
  InstanceState,
  type Instance as InstanceView,
  NodeSchema,
  NodeState,
  type Node as NodeView,
  TenantSchema,
  type Tenant as TenantView,
} from "@warren/proto/common";
import { type ClusterDefaults, ClusterDefaultsSchema } from "@warren/proto/scheduler";
import { urlOf } from "../core/addresses.ts";
import type { CoreConfig } from "../core/config.ts";
import { peakOf } from "../core/estimate.ts";
import { evictionOf } from "../core/explain.ts";
import { isLooping } from "../core/failures.ts";
import {
  type Instance,
  inFlight,
  type Moment,
  type Node,
  newestOf,
  type State,
  serving,
  specOf,
  type Tenant,
} from "../core/model.ts";
import { viewOf as rolloutView } from "../core/rollout.ts";
import { isAsleep } from "../core/sleep.ts";
import { exitText } from "../refusals.ts";

export function tenantView(state: State, config: CoreConfig, tenant: Tenant, at: Moment): TenantView {
  return create(TenantSchema, {
    spec: tenant.newest.spec,
    version: BigInt(tenant.newest.version),
    createdAt: toTimestamp(tenant.createdAt),
    updatedAt: toTimestamp(tenant.updatedAt),
    url: urlOf(state, tenant.key),
    servingVersion: BigInt(serving(tenant).version),
    rollout: tenant.rollout && rolloutView(tenant.rollout),
    backoff: backoffView(config, tenant, at),
    evicted: newestOf(state, tenant.key) ? "" : (evictionOf(tenant)?.message ?? ""),
    servingSpec: serving(tenant) === tenant.newest ? undefined : serving(tenant).spec,
  });
}

/** What holds where a spec says nothing. */
export function defaultsView(config: CoreConfig): ClusterDefaults {
  return create(ClusterDefaultsSchema, {
    freezeAfter: toDuration(config.idleFreezeAfterMs),
    pageOutAfter: toDuration(config.idlePageOutAfterMs),
    stopAfter: toDuration(config.idleStopAfterMs),
    drain: toDuration(config.drainMs),
    grace: toDuration(config.graceMs),
    readinessTimeout: toDuration(config.readinessMs),
    targetConcurrency: config.targetConcurrency,
  });
}

function backoffView(config: CoreConfig, tenant: Tenant, at: Moment): Backoff | undefined {
  const { failures, backoffUntil, lastExit } = tenant;
  if (backoffUntil <= at.mono) return undefined;
  return create(BackoffSchema, {
    failures,
    delay: toDuration(backoffUntil - at.mono),
    crashLoop: isLooping(tenant, at.mono, config),
    last: lastExit && exitText(lastExit),
    lastOutput: lastExit?.lastOutput,
  });
}

/** How many live instances run, sleep and are on their way. */
export function modesOf(state: State): { active: number; frozen: number; starting: number } {
  const modes = { active: 0, frozen: 0, starting: 0 };
  for (const instance of state.instances.values()) {
    if (instance.lost) continue;
    const { kind } = instance.phase;
    if (kind === "persisting" || kind === "starting") modes.starting++;
    else if (kind === "ready") modes[isAsleep(instance) ? "frozen" : "active"]++;
  }
  return modes;
}

const states: Record<Instance["phase"]["kind"], InstanceState> = {
  persisting: InstanceState.PENDING,
  unconfirmed: InstanceState.PENDING,
  starting: InstanceState.STARTING,
  ready: InstanceState.READY,
  draining: InstanceState.DRAINING,
  stopping: InstanceState.STOPPING,
};

export function instanceView(state: State, config: CoreConfig, instance: Instance, at: Moment): InstanceView {
  const { phase } = instance;
  return create(InstanceSchema, {
    ref: instance.ref,
    state: states[phase.kind],
    mode:
      phase.kind !== "ready"
        ? InstanceMode.UNSPECIFIED
        : phase.attempt
          ? InstanceMode.QUIESCING
          : instance.mode,
    isolation: instance.isolation,
    endpoint: isServed(state, instance) ? instance.endpoint : undefined,
    pid: instance.pid,
    startedAt: instance.startedAtWall ? toTimestamp(instance.startedAtWall) : undefined,
    startDuration: instance.startMs ? toDuration(instance.startMs) : undefined,
    startPhases: instance.startPhases,
    lastUsedAt: toTimestamp(at.wall - (at.mono - instance.lastUsed)),
    inFlight: inFlight(state, instance, at, config),
    usage: instance.usage,
  });
}

/** Whether anything answers at its endpoint. */
function isServed(state: State, { ref }: Instance): boolean {
  const tenant = state.tenants.get(ref.tenant);
  return !tenant || servesHttp(specOf(tenant, ref));
}

/** @param lateMs without a report for so long it is late */
export function nodeView(lateMs: number, node: Node, at: Moment): NodeView {
  return create(NodeSchema, {
    name: node.name,
    state: nodeState(lateMs, node, at),
    cordoned: node.cordoned,
    agentUrl: node.agentUrl,
    capacity: node.capacity,
    pressure: node.pressure,
    isolation: [...node.isolation],
    host: node.host,
    labels: { ...node.labels },
    bootId: node.bootId,
    incarnation: node.incarnation,
    lastReportAt: node.lastReportWall ? toTimestamp(node.lastReportWall) : undefined,
    instances: node.placed,
    draining: node.draining !== undefined,
    predictedMemoryBytes: BigInt(Math.round(peakOf(node.charged.memory))),
    predictedCpuMillis: Math.round(peakOf(node.charged.cpu)),
    version: node.version,
  });
}

function nodeState(lateMs: number, node: Node, at: Moment): NodeState {
  if (node.lost) return NodeState.LOST;
  if (!node.confirmed) return NodeState.EXPECTED;
  return at.mono - node.lastReport > lateMs ? NodeState.LATE : NodeState.UP;
}
