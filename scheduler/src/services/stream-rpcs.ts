/** SchedulerService, the streams: endpoints to gateways, events to whoever follows them. */
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { decodeEvent, subjectPrefixOf } from "@warren/common/cloudevents";
import { isKey, keyRule } from "@warren/common/ids";
import { principalKey } from "@warren/common/rpc/auth";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp } from "@warren/common/time";
import { type Event, EventSchema, Role } from "@warren/proto/common";
import type { SchedulerService } from "@warren/proto/scheduler";
import type { StoredRecord } from "@warren/store";
import { lastEvents, untilQuiet } from "../event-search.ts";
import { askedTime } from "./asked-time.ts";
import type { Services } from "./context.ts";

/** What the payload of an event may be: "transition", "usage" and so on. */
const eventTypes = EventSchema.oneofs.find(({ name }) => name === "payload")!.fields.map(({ name }) => name);

function checkTypes(types: readonly string[]): void {
  const unknown = types.find((type) => !eventTypes.includes(type));
  if (unknown === undefined) return;
  throw rpcError(
    Code.InvalidArgument,
    `types: there are no events of type ${JSON.stringify(unknown)}: they are ${eventTypes.join(", ")}`,
  );
}

export function streamRpcs(services: Services) {
  const { engine, store, watchers, log, stopping } = services;

  const ending = (context: HandlerContext) => AbortSignal.any([context.signal, stopping]);

  const readable = (record: StoredRecord): Event | undefined => {
    try {
      return decodeEvent(record, record.seq);
    } catch (error) {
      log.warn({ err: error, id: record.id }, "the journal holds a record that is no event of ours");
      return undefined;
    }
  };

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

    async *watchEvents(request, context) {
      const { tenant, after, follow, tail, since, types } = request;
      if (tenant && !isKey(tenant)) throw rpcError(Code.InvalidArgument, `tenant: ${keyRule}`);
      checkTypes(types);
      const from = askedTime(since, "since");
      const signal = ending(context);
      const head = await store.journal.lastSeq();
      const isWanted = (event: Event) =>
        (!tenant || event.tenant === tenant) &&
        (types.length === 0 || types.includes(event.payload.case ?? "")) &&
        fromTimestamp(event.time, 0) >= from;
      yield {};
      if (tail !== undefined) {
        const past = { head, after: after ?? 0n, most: tail, since: from, read: readable, isWanted };
        for (const event of await lastEvents(store.journal, past, signal)) yield { event };
      }
      // Without `follow` all are read, so that the end is seen even if the newest event is another tenant's.
      const begin = tail === undefined ? (after ?? head) : head;
      if (!follow && begin >= head) return;
      const batches = follow
        ? store.journal.read({ after: begin, subjectPrefix: subjectPrefixOf(tenant), signal })
        : untilQuiet(store.journal, begin, signal);
      for await (const batch of batches) {
        for (const record of batch.records) {
          if (!follow && record.seq > head) return;
          const event = readable(record);
          if (event && isWanted(event)) yield { event };
          if (!follow && record.seq >= head) return;
        }
        await batch.ack();
      }
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}
