/** `warren ps | version`: what there is. */
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
import { type Column, fittingTable, tableWidth, wideText } from "../columns.ts";
import { memoryHelp } from "../memory-help.ts";
import { modeName, rungsName, stateName } from "../names.ts";
import { age, bytes, messageJson, printJson } from "../output.ts";
import { allTenants } from "../pages.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";
import { version } from "../version.ts";

export function listCommands(program: Command): void {
  asVerb(program.command("ps").aliases(["list", "ls"]))
    .description("list tenants and their instances")
    .argument("[tenant]", "only this one")
    .option("--wide", wideText)
    .addHelpText("after", `\n${memoryHelp} RSS (--wide) is all that its processes map.`)
    .action((tenant: string | undefined, options: VerbOptions & { wide?: boolean }) =>
      withWarren(options, async (warren) => {
        const [tenants, { instances }] = await Promise.all([
          tenant
            ? warren.scheduler.getTenant({ tenant }).then((found) => [found.tenant!])
            : Array.fromAsync(allTenants(warren)),
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
        const rows = [...instances.map(instanceRow), ...withoutInstance(tenants, instances).map(coldRow)];
        process.stdout.write(fittingTable(psColumns, rows, { width: tableWidth(options) }));
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

/** An instance of a tenant, or a tenant that has none. */
type PsRow = Readonly<Partial<Record<PsTitle, string>>>;

/** By what goes first where there is little room. */
const psRanks = {
  TENANT: 0,
  INSTANCE: 5,
  NODE: 3,
  STATE: 0,
  ISOLATION: 10,
  ADDRESS: 8,
  PID: 9,
  UP: 6,
  START: 11,
  IDLE: 1,
  OPEN: 7,
  MEMORY: 2,
  CPU: 4,
  RSS: 12,
} as const;
type PsTitle = keyof typeof psRanks;

/** What `warren ps` shows of each. */
export const psColumns: readonly Column<PsRow>[] = Object.entries(psRanks).map(([title, rank]) => ({
  title,
  rank,
  text: (row) => row[title as PsTitle] ?? "-",
}));

export function instanceRow(instance: Instance): PsRow {
  const { ref, state, mode, endpoint, usage } = instance;
  const now = Date.now();
  const ready = state === InstanceState.READY && mode !== InstanceMode.ACTIVE;
  return {
    TENANT: ref?.tenant ?? "",
    INSTANCE: ref?.id ?? "",
    NODE: ref?.node ?? "",
    STATE: ready ? modeName(mode) : stateName(state),
    ISOLATION: rungsName([instance.isolation]),
    ADDRESS: endpoint && `${endpoint.host}:${endpoint.port}`,
    PID: instance.pid ? `${instance.pid}` : undefined,
    UP: instance.startedAt && age(Math.max(0, now - fromTimestamp(instance.startedAt, now))),
    START: instance.startDuration && age(fromDuration(instance.startDuration, 0)),
    IDLE: age(Math.max(0, now - fromTimestamp(instance.lastUsedAt, now))),
    OPEN: `${instance.inFlight}`,
    MEMORY: usage && bytes(Number(usage.memoryBytes)),
    CPU: usage && `${(Number(usage.cpuUs) / 1e6).toFixed(2)} s`,
    RSS: usage && bytes(Number(usage.rssBytes)),
  };
}

function withoutInstance(tenants: readonly Tenant[], instances: readonly Instance[]): Tenant[] {
  const warm = new Set(instances.map((instance) => instance.ref?.tenant));
  return tenants.filter((tenant) => !warm.has(tenant.spec?.key));
}

function coldRow(tenant: Tenant): PsRow {
  return { TENANT: tenant.spec?.key ?? "", STATE: coldText(tenant) };
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
