/** `warren export`: the ledger's rows for a billing system. */
import { open, rename, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { ExportFormat } from "@warren/proto/metering";
import { type Command, Option } from "commander";
import { UserError } from "../exit.ts";
import { asMeteredVerb, type By, byNames, exportText, withMetering } from "../metered.ts";
import { momentOption } from "../moments.ts";
import type { VerbOptions } from "../verb.ts";

const formats = {
  csv: ExportFormat.CSV,
  json: ExportFormat.JSON,
  openmeter: ExportFormat.OPENMETER,
} as const;

interface ExportOptions extends VerbOptions {
  readonly format?: keyof typeof formats;
  readonly from?: number;
  readonly to?: number;
  readonly by: By;
  readonly settled?: boolean;
  readonly output?: string;
}

const moment = (text: string): number => momentOption(text);

export function exportCommand(program: Command): void {
  asMeteredVerb(program.command("export"))
    .description("write what tenants used for a billing system, exactly and by the hour")
    .argument("[tenant]", "only this one's")
    .addOption(
      new Option(
        "--format <format>",
        "CSV (default), JSON lines (as --json), or CloudEvents as OpenMeter takes them (settled windows only; sent again they change nothing)",
      ).choices(Object.keys(formats)),
    )
    .option(
      "--from <time>",
      "from then on: 2026-11-21T10:00:00Z, 2026-11-21, 2026-11 (UTC), or 7d for so long ago",
      moment,
    )
    .option("--to <time>", "until then (default: now)", moment)
    .addOption(new Option("--by <window>", "cut into windows (UTC)").choices(byNames).default("hour"))
    .option("--settled", "only windows to which nothing is expected to be added any more")
    .option(
      "--output <file>",
      "write to this file, which is there once it is whole (default: standard output)",
    )
    .action((tenant: string | undefined, options: ExportOptions) =>
      withMetering(options, async (metering, signal) => {
        const format = formatOf(options);
        const text = exportText(metering, { ...options, tenant }, formats[format], signal);
        const bytes =
          options.output === undefined
            ? await writeOut(text)
            : await writeFile(resolve(options.output), text);
        if (bytes === 0) process.stderr.write(nothingText(format, options.settled));
      }),
    );
}

/** @throws UserError when --json and --format ask for different things */
function formatOf({ format, json = false }: ExportOptions): keyof typeof formats {
  if (json && format !== undefined && format !== "json")
    throw new UserError(`--json and --format ${format} exclude each other: leave out one of them`);
  return json ? "json" : (format ?? "csv");
}

/** Why an export is empty: an empty file would look like a tenant that used nothing. */
function nothingText(format: keyof typeof formats, settled = false): string {
  const isSettledOnly = settled || format === "openmeter";
  const hint = isSettledOnly
    ? "only settled windows are exported, and none is settled yet"
    : "nothing was used in this time";
  return `nothing to export: ${hint}\n`;
}

/** Waits for its reader: the export is not gathered in memory. Answers how many bytes it had. */
async function writeOut(text: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0;
  for await (const part of text) {
    bytes += part.length;
    await new Promise<void>((done, failed) =>
      process.stdout.write(part, (error) => (error ? failed(error) : done())),
    );
  }
  return bytes;
}

/** Nobody is to take half an export for a whole one. */
async function writeFile(path: string, text: AsyncIterable<Uint8Array>): Promise<number> {
  const unfinished = `${path}.${process.pid}.part`;
  const file = await open(unfinished, "wx", 0o600);
  try {
    let bytes = 0;
    for await (const part of text) {
      bytes += part.length;
      await file.writeFile(part);
    }
    await file.sync();
    await file.close();
    await rename(unfinished, path);
    return bytes;
  } catch (error) {
    await file.close().catch(() => {});
    await rm(unfinished, { force: true });
    throw error;
  }
}
