/** `warren ps | version`: what there is. */
import type { Warren } from "@warren/client";
import { fromDuration, fromTimestamp } from "@warren/common/time";
import {
  BackoffSchema,
  type Instance,
  InstanceMode,
  InstanceSchema,
  InstanceState,
  type Tenant,
} from "@warren/proto/common";
import type { Command } from "commander";
import { modeName, rungsName, stateName } from "../names.ts";
import { age, bytes, messageJson, printJson, printTable } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";
import { version } from "../version.ts";

export function listCommands(program: Command): void {
  asVerb(program.command("ps").aliases(["list", "ls"]))
    .description("list tenants and their instances")
    .argument("[tenant]", "only this one")
    .action((tenant: string | undefined, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const [tenants, { instances }] = await Promise.all([
          tenant
            ? warren.scheduler.getTenant({ tenant }).then((found) => [found.tenant!])
            : allTenants(warren),
          warren.scheduler.listInstances({ tenant }),
        ]);
        if (options.json) {
          for (const instance of instances) {
            const json = messageJson(InstanceSchema, instance) as object;
            printJson({ tenant: instance.ref?.tenant, ...json });
          }
          for (const tenant of withoutInstance(tenants, instances)) printJson(coldJson(tenant));
          return;
        }
        printTable(
          [
            "TENANT",
            "INSTANCE",
            "NODE",
            "STATE",
            "ISOLATION",
            "ADDRESS",
            "PID",
            "UP",
            "START",
            "IDLE",
            "OPEN",
            "MEMORY",
            "CPU",
          ],
          [...instances.map(instanceRow), ...withoutInstance(tenants, instances).map(coldRow)],
        );
      }),
    );

  asVerb(program.command("version"))
    .description("versions of this program and of the cell it speaks to")
    .action(async (options: VerbOptions) => {
      const cell = await withWarren(options, (warren) =>
        warren.scheduler.getStats({}, { timeoutMs: 2_000 }),
      ).catch(() => undefined);
      if (options.json) printJson({ warren: version, bun: Bun.version, scheduler: cell?.version ?? null });
      else
        process.stdout.write(
          `warren ${version} (Bun ${Bun.version})\nscheduler ${cell?.version ?? "not reachable"}\n`,
        );
    });
}

async function allTenants(warren: Warren): Promise<Tenant[]> {
  const tenants: Tenant[] = [];
  for (let pageToken = ""; ; ) {
    const page = await warren.scheduler.listTenants({ pageSize: 1000, pageToken });
    tenants.push(...page.tenants);
    pageToken = page.nextPageToken;
    if (!pageToken) return tenants;
  }
}

function instanceRow(instance: Instance): string[] {
  const { ref, state, mode, endpoint, usage } = instance;
  const now = Date.now();
  const ready = state === InstanceState.READY && mode !== InstanceMode.ACTIVE;
  return [
    ref?.tenant ?? "",
    ref?.id ?? "",
    ref?.node ?? "",
    ready ? modeName(mode) : stateName(state),
    rungsName([instance.isolation]),
    endpoint ? `${endpoint.host}:${endpoint.port}` : "-",
    instance.pid ? `${instance.pid}` : "-",
    instance.startedAt ? age(Math.max(0, now - fromTimestamp(instance.startedAt, now))) : "-",
    instance.startDuration ? age(fromDuration(instance.startDuration, 0)) : "-",
    age(Math.max(0, now - fromTimestamp(instance.lastUsedAt, now))),
    `${instance.inFlight}`,
    usage ? bytes(Number(usage.memoryBytes)) : "-",
    usage ? `${(Number(usage.cpuUs) / 1e6).toFixed(2)} s` : "-",
  ];
}

function withoutInstance(tenants: readonly Tenant[], instances: readonly Instance[]): Tenant[] {
  const warm = new Set(instances.map((instance) => instance.ref?.tenant));
  return tenants.filter((tenant) => !warm.has(tenant.spec?.key));
}

function coldRow(tenant: Tenant): string[] {
  return [tenant.spec?.key ?? "", "-", "-", coldText(tenant), ...Array<string>(9).fill("-")];
}

/** A line of `ps --json` without an instance: it has no `ref`, and its state is in other words than an instance's. */
export function coldJson({ spec, version, url, backoff, evicted }: Tenant): unknown {
  const what = backoff?.crashLoop ? "crash-loop" : "back-off";
  return {
    tenant: spec?.key,
    state: backoff ? what : "cold",
    version: Number(version),
    url,
    evicted: evicted || undefined,
    backoff: backoff && messageJson(BackoffSchema, backoff),
  };
}

/** "cold", or until when it is not started, or why it was evicted. */
function coldText({ backoff, evicted }: Tenant): string {
  if (!backoff) return evicted ? `cold, evicted ${evicted}` : "cold";
  const what = backoff.crashLoop ? "crash loop" : "back-off";
  return `${what} ${age(fromDuration(backoff.delay, 0))}: ${backoff.last}`;
}
