/** `warren usage`: what tenants used, from the ledger. */
import { ExportFormat, type TenantUsage, TenantUsageSchema } from "@warren/proto/metering";
import { type Command, InvalidArgumentError, Option } from "commander";
import pc from "../colors.ts";
import { withRoom } from "../columns.ts";
import { memoryHelp } from "../memory-help.ts";
import { asMeteredVerb, type By, byNames, exportText, usageRows, withMetering } from "../metered.ts";
import { momentOption } from "../moments.ts";
import { messageJson, printJson } from "../output.ts";
import { plotsHere, terminalWidth } from "../plot.ts";
import { type UsageColumn, usageColumns } from "../usage-columns.ts";
import { tenantsText, windowsText } from "../usage-text.ts";
import { countOption, type VerbOptions } from "../verb.ts";

interface UsageOptions extends VerbOptions {
  readonly from?: number;
  readonly to?: number;
  readonly by?: By;
  readonly meter?: readonly string[];
  readonly top: number;
  readonly csv?: boolean;
  readonly plot?: boolean;
}

/** Columns of the terminal that a plot should have. */
const goodPlot = 22;
const dayMs = 86_400_000;
/** How far back windows are shown unless told otherwise, in ms. */
const backMs: Partial<Record<By, number>> = { hour: dayMs, day: 30 * dayMs, month: 365 * dayMs };

export function usageCommand(program: Command): void {
  asMeteredVerb(program.command("usage"))
    .description("what tenants used, from the ledger; with --by, over time")
    .argument("[tenant]", "only this one, day by day unless told otherwise")
    .option(
      "--from <time>",
      "from then on: 2026-11-21T10:00:00Z, 2026-11-21, 2026-11 (UTC), or 7d for so long ago",
      moment,
    )
    .option("--to <time>", "until then", moment)
    .addOption(new Option("--by <window>", "cut into windows (UTC)").choices(byNames))
    .option(
      "--meter <names>",
      `only these, with commas; the first is plotted: ${[...usageColumns.keys()].join(", ")}`,
      metersOption,
    )
    .option("--top <n>", "tenants shown, those with the highest use", countOption, 50)
    .addOption(new Option("--csv", "print CSV, with exact numbers").conflicts("json"))
    .option("--plot", "plot, even where nobody looks (default: on a terminal with colours)")
    .option("--no-plot", "do not plot")
    .addHelpText("after", `\n${memoryHelp} It is summed over time: 1 GiB for 1 s is 1 GiB·s.`)
    .action((tenant: string | undefined, options: UsageOptions) =>
      withMetering(options, async (metering, signal) => {
        const by = options.by ?? (tenant ? "day" : "total");
        const back = backMs[by];
        const from = options.from ?? (back === undefined ? undefined : (options.to ?? Date.now()) - back);
        const span = { tenant, from, to: options.to, by, timeout: options.timeout };
        if (options.csv) {
          for await (const text of exportText(metering, span, ExportFormat.CSV, signal))
            process.stdout.write(text);
          return;
        }
        const rows: TenantUsage[] = [];
        for await (const row of usageRows(metering, span, signal)) {
          if (options.json) printJson(messageJson(TenantUsageSchema, row));
          else rows.push(row);
        }
        if (options.json) return;
        if (rows.length === 0) {
          process.stdout.write(
            `${tenant ?? "nobody"} has used ${tenant ? "nothing" : "anything"} in that time\n`,
          );
          return;
        }
        const width = (options.plot ?? plotsHere()) ? terminalWidth() : undefined;
        const text = (columns: readonly UsageColumn[], width: number | undefined) =>
          tenant
            ? windowsText(rows, by, { columns, width })
            : tenantsText(rows, by, { columns, width, most: options.top });
        const columns = columnsOf(options.meter);
        const shown = options.meter || width === undefined ? columns : plottable(columns, width, text);
        process.stdout.write(text(shown, width));
        const left = columns.slice(shown.length).map(({ title }) => title.toLowerCase());
        if (left.length > 0) process.stdout.write(pc.dim(`… and ${left.join(", ")}: --meter or --no-plot\n`));
      }),
    );
}

/** As many columns, from the first, as leave room for a plot. */
function plottable(
  columns: readonly UsageColumn[],
  width: number,
  text: (columns: readonly UsageColumn[], width: undefined) => string,
): readonly UsageColumn[] {
  const widest = (some: readonly UsageColumn[]) =>
    Math.max(
      ...text(some, undefined)
        .split("\n")
        .map((line) => Bun.stringWidth(line)),
    );
  return withRoom(
    columns,
    (column) => columns.indexOf(column),
    (some) => widest(some) + goodPlot <= width,
  );
}

const columnsOf = (names: readonly string[] = [...usageColumns.keys()]): UsageColumn[] =>
  names.map((name) => usageColumns.get(name)!);

const moment = (text: string): number => momentOption(text);

function metersOption(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !usageColumns.has(name));
  if (unknown !== undefined)
    throw new InvalidArgumentError(
      `There is no meter ${unknown}; there are: ${[...usageColumns.keys()].join(", ")}.`,
    );
  return [...new Set(names)];
}
