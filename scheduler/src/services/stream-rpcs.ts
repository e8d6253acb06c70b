/** SchedulerService, the streams: endpoints to gateways, events and output to whoever follows them. */
import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { decodeEvent, subjectPrefixOf } from "@warren/common/cloudevents";
import { isKey, keyRule } from "@warren/common/ids";
import { principalKey } from "@warren/common/rpc/auth";
import { streaming } from "@warren/common/rpc/client";
import { Code, isRpcCode, rpcError } from "@warren/common/rpc/errors";
import { pause } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { type Event, type InstanceRef, Role } from "@warren/proto/common";
import { type SchedulerService, StreamLogsResponseSchema } from "@warren/proto/scheduler";
import type { StoredRecord } from "@warren/store";
import { newestOf } from "../core/model.ts";
import { toRpcError } from "../refusals.ts";
import type { Services } from "./context.ts";

const defaultTail = 100;

/** So often a follower of a tenant's output looks whether there is a new instance, in ms. */
const nextInstanceMs = 100;

export function streamRpcs(services: Services) {
  const { engine, store, watchers, agents, log, stopping } = services;
  const { state } = engine.core;

  const ending = (context: HandlerContext) => AbortSignal.any([context.signal, stopping]);

  const latest = (tenant: string): InstanceRef | undefined =>
    newestOf(state, tenant)?.ref ?? state.tenants.get(tenant)?.lastRef;

  const readable = (record: StoredRecord): Event | undefined => {
    try {
      return decodeEvent(record, record.seq);
    } catch (error) {
      log.warn({ err: error, id: record.id }, "the journal holds a record that is no event of ours");
      return undefined;
    }
  };

  async function* outputOf(ref: InstanceRef, tail: number, follow: boolean, signal: AbortSignal) {
    const node = state.nodes.get(ref.node);
    if (!node)
      throw rpcError(
        Code.Unavailable,
        `node ${ref.node}, where ${ref.tenant} was last, is not in the roster`,
      );
    const client = agents.connection(node.agentUrl).client(AgentService);
    try {
      const batches = streaming(
        (s) => client.streamLogs({ instance: ref.id, tail, follow }, { signal: s }),
        signal,
      );
      for await (const { lines } of batches) {
        yield create(StreamLogsResponseSchema, {
          lines: lines.map(({ stream, at, text, cut }) => ({ instance: ref.id, stream, at, text, cut })),
        });
      }
    } catch (error) {
      if (signal.aborted) return;
      // Placed and not spawned yet, or so long ago that its output is gone.
      if (!isRpcCode(error, Code.NotFound)) throw error;
    }
  }

  return {
    async *watchEndpoints({ gateway, publicUrl }, context) {
      const isGateway = context.values.get(principalKey)?.role === Role.GATEWAY;
      const signal = ending(context);
      try {
        yield* watchers.watch(gateway, signal, () =>
          engine.feed({
            type: "watcher-up",
            watcher: gateway,
            gateway: isGateway ? { publicUrl } : undefined,
          }),
        );
      } finally {
        if (isGateway) engine.feed({ type: "gateway-down", gateway });
      }
    },

    async *watchEvents({ tenant, after, follow }, context) {
      if (tenant && !isKey(tenant)) throw rpcError(Code.InvalidArgument, `tenant: ${keyRule}`);
      const signal = ending(context);
      const head = await store.journal.lastSeq();
      yield {};
      // Without `follow` all are read, so that the end is seen even if the newest event is another tenant's.
      const subjectPrefix = follow ? subjectPrefixOf(tenant) : undefined;
      if (!follow && (after ?? head) >= head) return;
      for await (const batch of store.journal.read({ after: after ?? head, subjectPrefix, signal })) {
        for (const record of batch.records) {
          if (!follow && record.seq > head) return;
          const event = readable(record);
          if (event && (!tenant || event.tenant === tenant)) yield { event };
          if (!follow && record.seq >= head) return;
        }
        await batch.ack();
      }
    },

    async *streamLogs({ tenant, tail = defaultTail, follow }, context) {
      if (!state.tenants.has(tenant)) throw toRpcError({ kind: "no-tenant", tenant });
      const signal = ending(context);
      let ref = latest(tenant);
      if (!ref && !follow) {
        throw rpcError(
          Code.NotFound,
          `tenant ${tenant} has not run since this scheduler took over: there is no output`,
        );
      }
      for (let lines = tail; !signal.aborted; lines = 10_000) {
        if (ref) yield* outputOf(ref, lines, follow, signal);
        if (!follow) return;
        const before: string | undefined = ref?.id;
        while (!signal.aborted && state.tenants.has(tenant) && ref?.id === before) {
          await pause(nextInstanceMs, signal);
          ref = latest(tenant);
        }
        if (!state.tenants.has(tenant)) return;
      }
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}
