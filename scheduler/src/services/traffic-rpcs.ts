/** SchedulerService, the part for what gateways passed to tenants: into the journal, and answered once it is there. */
import type { ServiceImpl } from "@connectrpc/connect";
import { type EventStyle, encodeEvent } from "@warren/common/cloudevents";
import { principalKey } from "@warren/common/rpc/auth";
import { Code, rpcError } from "@warren/common/rpc/errors";
import type { SchedulerService, TrafficRecord } from "@warren/proto/scheduler";
import type { JournalRecord } from "@warren/store";
import { askedTime } from "./asked-time.ts";
import type { Services } from "./context.ts";

const ulidLength = 26;

export function trafficRpcs({ store, log, eventStyle }: Services) {
  return {
    async reportTraffic({ records }, context) {
      const caller = context.values.get(principalKey)?.name ?? "";
      const events = records.map((record) => trafficEvent(record, caller, eventStyle));
      try {
        await store.journal.append(events, { deadlineMs: 5_000 });
      } catch (error) {
        log.warn({ err: error, gateway: caller }, "the journal did not take a gateway's traffic");
        throw rpcError(Code.Unavailable, "the journal does not take traffic now: send it again, unchanged");
      }
      return {};
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}

/** @throws ConnectError PERMISSION_DENIED for a record of another gateway's, INVALID_ARGUMENT */
function trafficEvent({ seq, report }: TrafficRecord, caller: string, style: EventStyle): JournalRecord {
  const { gateway, tenant, at } = report!;
  const name = gateway.slice(0, -ulidLength - 1);
  const incarnation = gateway.slice(-ulidLength);
  if (name !== caller) {
    throw rpcError(
      Code.PermissionDenied,
      `this credential is for gateway ${caller}, not for ${name}: a gateway's --name is that of its certificate`,
    );
  }
  const event = {
    id: `${name}:${incarnation}:${seq}`,
    source: name,
    time: askedTime(at, "records.report.at"),
    tenant,
    payload: { case: "traffic" as const, value: report! },
  };
  return encodeEvent(event, style);
}
