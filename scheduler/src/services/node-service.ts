/** NodeService: what agents tell the scheduler. */
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { type EventStyle, encodeEvent } from "@warren/common/cloudevents";
import { principalKey } from "@warren/common/rpc/auth";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp, toDuration } from "@warren/common/time";
import type { StorageReport, Transition, UsageReport } from "@warren/proto/common";
import {
  JoinResponseSchema,
  type NodeRecord,
  type NodeService,
  type ReportRequest,
  ReportResponseSchema,
} from "@warren/proto/scheduler";
import type { JournalRecord } from "@warren/store";
import { periodsOf } from "../core/periods.ts";
import type { Services } from "./context.ts";

/** Of a report's period. */
const spread = 0.1;

export function nodeService(services: Services): ServiceImpl<typeof NodeService> {
  const { engine, store, releases, epoch, log, eventStyle } = services;
  const { config, state } = engine.core;
  /** Each a little different: nodes that joined at once do not go on reporting at once. */
  const nextReport = () =>
    toDuration(periodsOf(config, state.nodes.size).report * (1 + spread * (2 * Math.random() - 1)));
  return {
    async join(request, context) {
      const who = context.values.get(principalKey)?.name;
      if (who !== undefined && who !== request.node) {
        throw rpcError(
          Code.PermissionDenied,
          `this credential is for node ${who}, not for ${request.node}: each node has its own`,
        );
      }
      if (request.highestEpoch > epoch) {
        // Another leads; or the store has lost its epochs, and the next lease will be above this one.
        const message = `node ${request.node} has seen epoch ${request.highestEpoch}; this scheduler holds ${epoch}`;
        services.onStale(new Error(message), request.highestEpoch);
        throw rpcError(Code.FailedPrecondition, message);
      }
      await engine.ask((call) => ({
        type: "join",
        call,
        info: {
          node: request.node,
          agentUrl: request.agentUrl,
          bootId: request.bootId,
          incarnation: request.incarnation,
          version: request.version,
          capacity: request.capacity!,
          isolation: request.isolation,
          host: request.host,
          labels: request.labels,
          allowDirectories: request.allowDirectories,
        },
      }));
      const { nodes } = engine.core.state;
      // Only then is one left over: to look for it at each join would take long when thousands join at once.
      if (services.agents.size > nodes.size) {
        services.agents.keepOnly(new Set([...nodes.values()].map((node) => node.agentUrl)));
      }
      log.info({ node: request.node, url: request.agentUrl }, "a node joined");
      return create(JoinResponseSchema, {
        epoch,
        reportPeriod: nextReport(),
        cell: config.cell,
      });
    },

    async report(request) {
      const transitions: Transition[] = [];
      const usages: UsageReport[] = [];
      const storages: StorageReport[] = [];
      for (const { what } of request.records) {
        if (what.case === "transition") transitions.push(what.value);
        else if (what.case === "usage") usages.push(what.value);
        else if (what.case === "storage") storages.push(what.value);
      }
      // The state first: a journal that is away must not keep a free place taken.
      await engine.ask((call) => ({
        type: "report",
        call,
        node: request.node,
        incarnation: request.incarnation,
        fencedEpoch: request.fencedEpoch,
        transitions,
        usages,
        storages,
        pressure: request.pressure,
        inventory: request.inventory?.instances,
        copies: request.inventory?.volumes,
      }));
      let ackedSeq = 0n;
      if (request.records.length) {
        try {
          await store.journal.append(journalRecords(request, eventStyle), { deadlineMs: 5_000 });
          ackedSeq = request.records.at(-1)!.seq;
        } catch (error) {
          // Not acknowledged: the agent keeps them and sends them again.
          log.warn({ err: error, node: request.node }, "the journal did not take a node's records");
        }
      }
      return create(ReportResponseSchema, {
        ackedSeq,
        reportPeriod: nextReport(),
        epoch,
      });
    },

    async *downloadRelease(request, context) {
      yield* releases.send(request.digest, context.signal);
    },
  };
}

function journalRecords(request: ReportRequest, style: EventStyle): JournalRecord[] {
  return request.records.flatMap((record) => {
    const payload = payloadOf(record);
    if (!payload) return [];
    const event = {
      id: `${request.node}:${request.stream}:${record.seq}`,
      source: request.node,
      time: fromTimestamp(record.at, 0),
      tenant: payload.case === "storage" ? payload.value.tenant : (payload.value.instance?.tenant ?? ""),
      payload,
    };
    return encodeEvent(event, style);
  });
}

function payloadOf({ what }: NodeRecord) {
  return what.case === undefined ? undefined : what;
}
