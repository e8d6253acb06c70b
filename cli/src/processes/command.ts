/** A process's command, made from its schema: each field is a flag, an environment variable and a key of a file. */
import { envName, kebab, loadConfig } from "@warren/common/config";
import type { Command } from "commander";
import type { z } from "zod";
import { fail } from "../exit.ts";
import { durationText, sizeText } from "../quantities.ts";

export function processCommand<S extends z.ZodObject>(
  program: Command,
  options: { name: string; summary: string; schema: S; run: (config: z.output<S>) => Promise<unknown> },
): void {
  const { name, summary, schema, run } = options;
  const command = program
    .command(name)
    .description(summary)
    .option(
      "--config <file>",
      `JSON file with these settings by name; flags and WARREN_${name.toUpperCase()}_* win over it`,
    );
  for (const [key, raw] of Object.entries(schema.shape)) {
    const field = raw as z.ZodType;
    const shown = defaultText(field);
    command.option(
      `--${kebab(key)} <value>`,
      `${field.description ?? ""}${shown ? ` (default: ${shown})` : ""} [${envName(name, key)}]`,
    );
  }
  command.action(async (flags: Record<string, unknown> & { config?: string }) => {
    const { config: file, ...rest } = flags;
    try {
      await run(loadConfig(schema, { process: name, flags: rest, env: process.env, file }));
    } catch (error) {
      fail(error);
    }
  });
}

/** The default as a person writes it: "30s" and "8GiB", not 30000 and 8589934592. Undefined where there is none. */
function defaultText(field: z.ZodType): string | undefined {
  const { success, data } = field.safeParse(undefined);
  if (!success || data === undefined) return undefined;
  if (typeof data === "number") {
    // What kind of number it is shows in which texts the field takes.
    if (field.safeParse(durationText(data)).success) return durationText(data);
    if (field.safeParse(`${data}`).success && field.safeParse("1GiB").success) return sizeText(data);
    return `${data}`;
  }
  if (typeof data === "string" || typeof data === "boolean") return `${data}`;
  return Object.keys(data as object).length > 0 ? JSON.stringify(data) : undefined;
}
