/** A server that holds the scheduler's end of ReportSpending, over TLS, and remembers what it was told. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { serveRpc } from "@warren/common/rpc/server";
import {
  type ReportSpendingRequest,
  SchedulerService,
  type TenantLimits,
  TenantLimitsSchema,
} from "@warren/proto/scheduler";
import { silent } from "../harness.ts";

export async function startFakeScheduler(credentials: Credentials) {
  const reports: ReportSpendingRequest[] = [];
  const scheduler = {
    reports,
    limits: [] as TenantLimits[],
    version: 1n,
    /** Alerts by what makes them one, and how often each came. */
    alerts: new Map<string, number>(),
    /** The journal is away. */
    refuses: false,
    /** Answers are lost after the journal has the alerts. */
    forgets: false,
    url: "",
    setLimits(limits: MessageInitShape<typeof TenantLimitsSchema>[]) {
      scheduler.limits = limits.map((limit) => create(TenantLimitsSchema, limit));
      scheduler.version++;
    },
    async [Symbol.asyncDispose]() {
      await server.stop(100);
    },
  };
  const server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials,
    log: silent,
    routes: (router) =>
      router.service(SchedulerService, {
        reportSpending(report) {
          if (scheduler.refuses) throw rpcError(Code.Unavailable, "the journal is away");
          reports.push(report);
          for (const { tenant, periodStart, percent } of report.alerts) {
            const id = `${tenant} ${periodStart?.seconds} ${percent}`;
            scheduler.alerts.set(id, (scheduler.alerts.get(id) ?? 0) + 1);
          }
          if (scheduler.forgets && report.alerts.length > 0)
            throw rpcError(Code.Unavailable, "lost on the way");
          const unchanged = report.seenEpoch === 7n && report.seenLimitsVersion === scheduler.version;
          return {
            epoch: 7n,
            limitsVersion: scheduler.version,
            unchanged,
            limits: unchanged ? [] : scheduler.limits,
          };
        },
      }),
  });
  scheduler.url = server.url;
  return scheduler;
}
