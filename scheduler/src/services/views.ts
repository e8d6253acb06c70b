/** The core's state as the contracts show it. */
import { create } from "@bufbuild/protobuf";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
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
import type { CoreConfig } from "../core/config.ts";
import {
  type Instance,
  inFlight,
  type Moment,
  type Node,
  placedOn,
  type State,
  type Tenant,
  urlOf,
} from "../core/model.ts";

export function tenantView(state: State, tenant: Tenant): TenantView {
  return create(TenantSchema, {
    spec: tenant.spec,
    version: BigInt(tenant.version),
    createdAt: toTimestamp(tenant.createdAt),
    updatedAt: toTimestamp(tenant.updatedAt),
    url: urlOf(state, tenant.key),
  });
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
        : phase.quiescing
          ? InstanceMode.QUIESCING
          : instance.mode,
    isolation: instance.isolation,
    endpoint: instance.endpoint,
    pid: instance.pid,
    startedAt: instance.startedAtWall ? toTimestamp(instance.startedAtWall) : undefined,
    startDuration: instance.startMs ? toDuration(instance.startMs) : undefined,
    startPhases: instance.startPhases,
    lastUsedAt: toTimestamp(at.wall - (at.mono - instance.lastUsed)),
    inFlight: inFlight(state, instance, at, config),
    usage: instance.usage,
  });
}

export function nodeView(state: State, config: CoreConfig, node: Node, at: Moment): NodeView {
  return create(NodeSchema, {
    name: node.name,
    state: nodeState(config, node, at),
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
    instances: placedOn(state, node.name),
    version: node.version,
  });
}

function nodeState(config: CoreConfig, node: Node, at: Moment): NodeState {
  if (node.lost) return NodeState.LOST;
  if (!node.confirmed) return NodeState.EXPECTED;
  return at.mono - node.lastReport > config.nodeLateMs ? NodeState.LATE : NodeState.UP;
}
