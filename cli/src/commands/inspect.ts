/** `warren inspect TENANT`: its spec in people's units, and where each value comes from. */
import { fromTimestamp } from "@warren/common/time";
import { type TenantSpec, TenantSpecSchema } from "@warren/proto/common";
import type { GetTenantResponse } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "../colors.ts";
import { messageJson, printJson, tableText } from "../output.ts";
import { masked } from "../secrets.ts";
import { type Shown, shownSettings } from "../settings.ts";
import { oneLine } from "../terminal.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

interface InspectFlags extends VerbOptions {
  readonly showValues?: boolean;
}

export function inspectCommand(program: Command): void {
  asVerb(program.command("inspect"))
    .description("show a tenant's settings, and whether its spec, the cluster or a default says so")
    .argument("<tenant>")
    .option("--show-values", "on a terminal, show values of variables that look secret, too")
    .action((key: string, options: InspectFlags) =>
      withWarren(options, async (warren) => {
        const found = await warren.scheduler.getTenant({ tenant: key });
        if (options.json) {
          printJson(inspectJson(found));
          return;
        }
        const hides = process.stdout.isTTY === true && !options.showValues;
        process.stdout.write(inspectText(found, hides));
      }),
    );
}

/** What serves: the newest spec, unless that was rolled back. */
const servingSpec = ({ tenant }: GetTenantResponse): TenantSpec => tenant!.servingSpec ?? tenant!.spec!;

const isoOf = (time: Parameters<typeof fromTimestamp>[0]): string =>
  new Date(fromTimestamp(time, 0)).toISOString();

export function inspectJson(found: GetTenantResponse): unknown {
  const { version, servingVersion, url, createdAt, updatedAt, servingSpec: other } = found.tenant!;
  const spec = servingSpec(found);
  return {
    tenant: spec.key,
    version: Number(version),
    servingVersion: Number(servingVersion),
    rolledBack: other !== undefined,
    url,
    createdAt: isoOf(createdAt),
    updatedAt: isoOf(updatedAt),
    source: { [spec.source.case ?? "none"]: spec.source.value ?? null },
    env: { ...spec.env },
    settings: shownSettings(spec, found.defaults),
    spec: messageJson(TenantSpecSchema, spec),
  };
}

/** @param hides values that look secret */
export function inspectText(found: GetTenantResponse, hides: boolean): string {
  const { version, servingVersion, url, createdAt, updatedAt, rollout } = found.tenant!;
  const spec = servingSpec(found);
  const isRolledBack = servingVersion !== version;
  const head = [
    ["tenant", pc.bold(spec.key)],
    ["url", url],
    [
      "version",
      isRolledBack
        ? `${servingVersion} serves; ${version} was rolled back${rollout?.message ? ` (${oneLine(rollout.message)})` : ""}`
        : `${version}`,
    ],
    [spec.source.case ?? "source", `${spec.source.value ?? "none: it cannot be started"}`],
    ["created", isoOf(createdAt)],
    ["changed", isoOf(updatedAt)],
  ];
  const lines = head.map(([name, value]) => `${pc.dim(name!.padEnd(10))} ${value}\n`).join("");
  const variables = Object.entries(spec.env).sort(([a], [b]) => (a < b ? -1 : 1));
  const env = variables.map(([name, value]) => [name, oneLine(hides ? masked(name, value) : value), "spec"]);
  const envText = env.length > 0 ? `\n${tableText(["VARIABLE", "VALUE", "FROM"], env)}` : "";
  const rows = shownSettings(spec, found.defaults).map(settingRow);
  return `${lines}${envText}\n${tableText(["SETTING", "VALUE", "FROM"], rows)}`;
}

function settingRow({ name, value, from }: Shown): string[] {
  return from === "spec" ? [name, oneLine(value), from] : [name, value, from].map((text) => pc.dim(text));
}
