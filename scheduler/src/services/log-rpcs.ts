/** SchedulerService, output: of a tenant's live instances as one stream, or of one of them, or of one that has ended. */
import type { ServiceImpl } from "@connectrpc/connect";
import { decodeEvent } from "@warren/common/cloudevents";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { type Event, type InstanceRef, InstanceState } from "@warren/proto/common";
import type { SchedulerService } from "@warren/proto/scheduler";
import type { StoredRecord } from "@warren/store";
import { instancesOf } from "../core/model.ts";
import { lastEvents } from "../event-search.ts";
import { outputOf, type SourcesOptions } from "../output/sources.ts";
import { toRpcError } from "../refusals.ts";
import { askedTime } from "./asked-time.ts";
import type { Services } from "./context.ts";

const defaultTail = 100;
/** Ended instances among which one is looked for by its id. */
const mostEnded = 200;
/** Records of the journal that are looked through for them. */
const mostRead = 1_000_000n;

export function logRpcs({ engine, store, agents, stopping }: Services) {
  const { state } = engine.core;
  const options: SourcesOptions = {
    agents,
    agentUrl: (node) => state.nodes.get(node)?.agentUrl,
    monotonic: () => engine.now().mono,
  };

  /** Those that live, or did until their node was lost. */
  const live = (tenant: string): InstanceRef[] => instancesOf(state, tenant).map(({ ref }) => ref);

  /** The last ones that ended, newest first, as the journal has them: it outlives this scheduler. */
  const ended = async (tenant: string, most: number, signal: AbortSignal): Promise<InstanceRef[]> => {
    const head = await store.journal.lastSeq();
    const after = head > mostRead ? head - mostRead : 0n;
    const search = { head, after, most, since: 0, read: readable };
    const isWanted = (event: Event) => endOf(event)?.tenant === tenant;
    const events = await lastEvents(store.journal, { ...search, isWanted }, signal);
    return events.map((event) => endOf(event)!).reverse();
  };

  const byId = async (tenant: string, id: string, signal: AbortSignal): Promise<InstanceRef> => {
    const isMeant = (ref: InstanceRef) => ref.id.endsWith(id.toUpperCase());
    const here = live(tenant).filter(isMeant);
    const found = here.length > 0 ? here : (await ended(tenant, mostEnded, signal)).filter(isMeant);
    const ids = [...new Set(found.map((ref) => ref.id))];
    if (ids.length === 1) return found[0]!;
    throw rpcError(
      ids.length === 0 ? Code.NotFound : Code.InvalidArgument,
      ids.length === 0
        ? `tenant ${tenant} has no instance ${id}, and none of the last ${mostEnded} that ended is it ('warren events ${tenant} --type transition' names them)`
        : `${id} means ${ids.length} instances of ${tenant}: give more of its id`,
    );
  };

  const lastEnded = async (tenant: string, signal: AbortSignal): Promise<InstanceRef | undefined> => {
    const alive = new Set(live(tenant).map(({ id }) => id));
    const last = state.tenants.get(tenant)?.lastRef;
    if (last && !alive.has(last.id)) return last;
    return (await ended(tenant, 1 + alive.size, signal)).find(({ id }) => !alive.has(id));
  };

  return {
    async *streamLogs(request, context) {
      const { tenant, tail = defaultTail, follow, instance, previous, since, partial } = request;
      if (!state.tenants.has(tenant)) throw toRpcError({ kind: "no-tenant", tenant });
      askedTime(since, "since");
      if (instance && previous)
        throw rpcError(Code.InvalidArgument, "give an instance or previous, not both");
      const signal = AbortSignal.any([context.signal, stopping]);
      const wanted = { tail, since, follow, partial };
      const asked = async (): Promise<readonly InstanceRef[]> => {
        if (instance) return [await byId(tenant, instance, signal)];
        const now = previous ? [] : live(tenant);
        if (now.length > 0) return now;
        const last = await lastEnded(tenant, signal);
        if (last) return [last];
        if (follow && !previous) return [];
        throw rpcError(
          Code.NotFound,
          previous
            ? `no instance of tenant ${tenant} has ended that the journal knows: there is no output`
            : `tenant ${tenant} has not run yet: there is no output`,
        );
      };
      const refs = await asked();
      const isOne = instance !== "" || previous;
      const more =
        follow && !isOne ? () => (state.tenants.has(tenant) ? live(tenant) : undefined) : undefined;
      for await (const output of outputOf(refs, wanted, options, signal, more)) {
        const { lines = [], instances = [], leftOut = 0 } = output;
        yield {
          lines: lines.map(({ instance: id, stream, at, text, cut, partial: begun }) => ({
            instance: id,
            stream,
            at,
            text,
            cut,
            partial: begun,
          })),
          instances: [...instances],
          leftOut,
        };
      }
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}

/** The instance whose end the event tells. */
function endOf({ payload }: Event): InstanceRef | undefined {
  if (payload.case !== "transition" || payload.value.to !== InstanceState.EXITED) return undefined;
  return payload.value.instance;
}

function readable(record: StoredRecord): Event | undefined {
  if (!record.subject.endsWith(".transition")) return undefined;
  try {
    return decodeEvent(record, record.seq);
  } catch {
    return undefined; // said by who follows events
  }
}
