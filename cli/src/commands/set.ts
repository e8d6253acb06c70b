/** `warren set TENANT`: other settings for the release that it has, without a deploy. */
import type { Command } from "commander";
import pc from "../colors.ts";
import { commandArgument, commandOf } from "../command-words.ts";
import { editTenant, replacedText } from "../edit.ts";
import { UserError } from "../exit.ts";
import { printJson } from "../output.ts";
import { changedSettings, settingNames, unsetSetting } from "../settings.ts";
import { applyFlags, type SpecFlags } from "../spec.ts";
import { oneLine } from "../terminal.ts";
import { asVerb, collectOption, type VerbOptions, withWarren } from "../verb.ts";
import { specOptions } from "./deploy.ts";

interface SetFlags extends VerbOptions, SpecFlags {
  readonly unset?: readonly string[];
  readonly wait: boolean;
}

export function setCommand(program: Command): void {
  const command = asVerb(program.command("set"))
    .description("change settings of a tenant, with the flags of 'deploy'; its live instances are replaced")
    .argument("<tenant>")
    .argument(...commandArgument);
  specOptions(command)
    .option("--no-keep-warm", "stop it again for being idle")
    .option("--no-never-freeze", "freeze it again")
    .option("--no-adaptive", "stop it again after a fixed time")
    .option("--no-stop-first", "start the new instance first again")
    .option("--no-at-most-one", "start it elsewhere again when its node is lost")
    .option(
      "--unset <setting>",
      `back to the default or the cluster's; may be repeated: ${settingNames.join(", ")}`,
      collectOption,
    )
    .option("--no-wait", "do not wait until live instances are replaced")
    .action((key: string, words: string[], options: SetFlags) => {
      const flags = { ...options, command: commandOf(words, options.command) };
      if (!changesAnything(flags)) {
        throw new UserError("nothing to set: give at least one setting, such as --memory 200m");
      }
      return withWarren(
        options,
        async (warren, signal) => {
          const { wait, timeout } = options;
          const edited = await editTenant(warren, key, { wait, timeout, signal }, (spec) => {
            for (const name of flags.unset ?? []) unsetSetting(spec, name);
            applyFlags(spec, flags);
          });
          const { before, after, tenant, replaced } = edited;
          const changed = changedSettings(before, after);
          const variables = changedNames(before.env, after.env);
          if (options.json) {
            printJson({ tenant: key, version: Number(tenant.version), changed, env: variables, replaced });
            return;
          }
          const isSame = changed.length + variables.length === 0;
          const what = isSame ? pc.dim("as it was") : pc.dim(`version ${tenant.version}`);
          process.stdout.write(`${pc.green("set")} ${key} ${what}${replacedText(replaced)}\n`);
          for (const one of changed) {
            process.stdout.write(`  ${one.name}: ${oneLine(one.before)} → ${oneLine(one.after)}\n`);
          }
          if (variables.length > 0) process.stdout.write(`  env: ${variables.join(", ")}\n`);
        },
        { exact: true },
      );
    });
}

/** Whether a flag says anything of the spec. */
function changesAnything({
  wait,
  json,
  timeout,
  state,
  scheduler,
  credentials,
  ...flags
}: SetFlags): boolean {
  return Object.values(flags).some(
    (value) => value !== undefined && !(Array.isArray(value) && value.length === 0),
  );
}

/** Names whose values differ. */
function changedNames(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
): string[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].filter((name) => before[name] !== after[name]).sort();
}
