/** SchedulerService, the part for the ledger: which limits there are and which are reached, and alerts for the journal. */
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { type EventStyle, encodeEvent } from "@warren/common/cloudevents";
import { isKey, keyRule } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import type { BudgetAlert } from "@warren/proto/common";
import { type SchedulerService, TenantLimitsSchema } from "@warren/proto/scheduler";
import type { JournalRecord } from "@warren/store";
import { askedTime } from "./asked-time.ts";
import type { Services } from "./context.ts";

export function spendingRpcs({ engine, epoch, store, log, eventStyle }: Services) {
  const { state } = engine.core;
  return {
    async reportSpending({ reached, alerts, seenEpoch, seenLimitsVersion }) {
      const records = alerts.map((alert) => alertRecord(alert, eventStyle));
      // What is asked of the journal comes last: one that is away must not keep a limit from being held.
      engine.feed({
        type: "limits-reached",
        reached: reached.map(({ tenant, limit, used, until }) => ({
          tenant,
          limit: limit!,
          used,
          until: askedTime(until, "reached.until"),
        })),
      });
      if (records.length) {
        await store.journal.append(records, { deadlineMs: 5_000 }).catch((error: Error) => {
          log.warn({ err: error }, "the journal did not take budget alerts");
          throw rpcError(Code.Unavailable, "the journal does not take the alerts now: send them again");
        });
      }
      const version = BigInt(state.limitsVersion);
      const unchanged = seenEpoch === epoch && seenLimitsVersion === version;
      return {
        epoch,
        limitsVersion: version,
        unchanged,
        limits: unchanged
          ? []
          : [...state.limited].map(([tenant, limits]) =>
              create(TenantLimitsSchema, { tenant, limits: [...limits] }),
            ),
      };
    },
  } satisfies Partial<ServiceImpl<typeof SchedulerService>>;
}

/**
 * Its id is made of what it says, so that each is in the journal once however often it is sent.
 * @throws ConnectError INVALID_ARGUMENT
 */
function alertRecord(alert: BudgetAlert, style: EventStyle): JournalRecord {
  const { tenant, periodStart, periodEnd, percent } = alert;
  if (!isKey(tenant)) throw rpcError(Code.InvalidArgument, `alerts.tenant: ${keyRule}`);
  const month = new Date(askedTime(periodStart, "alerts.period_start")).toISOString().slice(0, 7);
  askedTime(periodEnd, "alerts.period_end");
  const event = {
    id: `metering:budget-${tenant}-${month}:${percent}`,
    source: "metering",
    time: Date.now(),
    tenant,
    payload: { case: "budget" as const, value: alert },
  };
  return encodeEvent(event, style);
}
