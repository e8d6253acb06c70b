/** A process's command, made from its schema: each field is a flag, an environment variable and a key of a file. */
import { envName, kebab, loadConfig } from "@warren/common/config";
import type { Command } from "commander";
import type { z } from "zod";
import { fail } from "../exit.ts";

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
    const fallback = field.safeParse(undefined);
    const shown = fallback.success && fallback.data !== undefined ? JSON.stringify(fallback.data) : undefined;
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
