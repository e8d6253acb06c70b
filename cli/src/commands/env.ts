/** `warren env ls | set | unset TENANT`: a tenant's environment, without a deploy. */
import type { Command } from "commander";
import pc, { errorColors } from "../colors.ts";
import { editTenant, replacedText } from "../edit.ts";
import { checkName, envLine, envPair, readEnvFile } from "../env.ts";
import { exitCodes, UserError } from "../exit.ts";
import { printJson } from "../output.ts";
import { masked } from "../secrets.ts";
import { escaped } from "../terminal.ts";
import { asVerb, collectOption, type VerbOptions, withWarren } from "../verb.ts";

interface ListFlags extends VerbOptions {
  readonly showValues?: boolean;
}

interface EditFlags extends VerbOptions {
  readonly envFile?: readonly string[];
  readonly wait: boolean;
}

export function envCommand(program: Command): void {
  const env = program.command("env").description("a tenant's environment: list, set and unset variables");

  asVerb(env.command("ls"))
    .description("list the variables that its spec gives, as a dotenv file has them")
    .argument("<tenant>")
    .option("--show-values", "on a terminal, show values that look secret, too")
    .action((key: string, options: ListFlags) =>
      withWarren(options, (warren) => list(warren, key, options), { exact: true }),
    );

  asVerb(env.command("set"))
    .description("give variables a value; live instances are replaced, without a gap")
    .argument("<tenant>")
    .argument("[NAME=value...]", "variables")
    .option("--env-file <file>", "take a dotenv file, '-' for stdin; may be repeated", collectOption)
    .option("--no-wait", "do not wait until live instances are replaced")
    .action((key: string, pairs: string[], options: EditFlags) => {
      const given: Record<string, string> = Object.assign(
        {},
        ...(options.envFile ?? []).map(readEnvFile),
        ...pairs.map((pair) => envPair(pair, pair)),
      );
      const names = Object.keys(given);
      if (names.length === 0) throw new UserError("nothing to set: give NAME=value, or --env-file FILE");
      return edit(key, names, options, "set", (spec) => Object.assign(spec.env, given));
    });

  asVerb(env.command("unset"))
    .description("take variables away; live instances are replaced, without a gap")
    .argument("<tenant>")
    .argument("<NAME...>", "variables")
    .option("--no-wait", "do not wait until live instances are replaced")
    .action((key: string, names: string[], options: EditFlags) => {
      for (const name of names) checkName(name, "env unset");
      return edit(key, names, options, "unset", (spec) => {
        const missing = names.filter((name) => !(name in spec.env));
        if (missing.length > 0) {
          throw new UserError(
            `tenant ${key} has no ${missing.join(", ")} ('warren env ls ${key}' lists what it has): nothing was changed`,
            exitCodes.notFound,
          );
        }
        for (const name of names) delete spec.env[name];
      });
    });
}

async function list(
  warren: Parameters<typeof editTenant>[0],
  key: string,
  options: ListFlags,
): Promise<void> {
  const { tenant } = await warren.scheduler.getTenant({ tenant: key });
  const { env } = tenant!.servingSpec ?? tenant!.spec!;
  const hides = process.stdout.isTTY === true && !options.showValues && !options.json;
  let hidden = 0;
  for (const [name, value] of Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (options.json) {
      printJson({ name, value });
      continue;
    }
    const shown = hides ? masked(name, value) : value;
    if (shown !== value) hidden++;
    const line = shown === value ? envLine(name, value) : `${name}=${shown}`;
    process.stdout.write(`${process.stdout.isTTY ? escaped(line) : line}\n`);
  }
  if (hidden > 0)
    process.stderr.write(
      `${errorColors.dim("values that look secret are hidden: --show-values shows them")}\n`,
    );
}

function edit(
  key: string,
  names: readonly string[],
  options: EditFlags,
  what: "set" | "unset",
  change: Parameters<typeof editTenant>[3],
): Promise<void> {
  return withWarren(
    options,
    async (warren, signal) => {
      const { wait, timeout } = options;
      const { tenant, replaced } = await editTenant(warren, key, { wait, timeout, signal }, change);
      if (options.json) printJson({ tenant: key, version: Number(tenant.version), [what]: names, replaced });
      else
        process.stdout.write(
          `${pc.green(what)} ${names.join(", ")} ${pc.dim(`of ${key}, version ${tenant.version}`)}${replacedText(replaced)}\n`,
        );
    },
    { exact: true },
  );
}
