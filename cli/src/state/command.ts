/** `warren state dump | restore`: what a cluster keeps, to another store, another machine or a later version. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import pc, { errorColors } from "../colors.ts";
import { exitCodes, UserError } from "../exit.ts";
import { bytes, printJson, progress } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";
import { version } from "../version.ts";
import { writeArchive } from "./archive.ts";
import { entriesOf, keptBy } from "./dump.ts";
import { restore } from "./restore.ts";

const notInIt = `
A dump holds tenants' specs (environment and secrets included: it is written with mode 0600), the releases that they run, and
which nodes are cordoned. Not in it: credentials ('credentials/' in the state directory), earlier releases, volumes
('warren volumes backup'), and what was used ('warren ledger dump').`;

export function stateCommand(program: Command): void {
  const state = program
    .command("state")
    .description(
      "dump what the cluster keeps, and restore it: to move to another store, or before an upgrade",
    );

  asVerb(state.command("dump"))
    .description("write tenants, the releases that they run and cordons to a file; the cluster goes on")
    .argument("<file>", "to be written")
    .addHelpText("after", notInIt)
    .action((file: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const path = resolve(file);
        const kept = await keptBy(warren, signal);
        const { cell } = await warren.scheduler.getStats({}, { signal });
        const { tenants, releases } = kept;
        const head = {
          version,
          cluster: cell,
          at: new Date().toISOString(),
          tenants: tenants.length,
          releases: releases.length,
        };
        const entries = entriesOf(
          warren,
          kept,
          ({ sizeBytes }, done) =>
            progress(`release ${done + 1} of ${releases.length}, ${bytes(Number(sizeBytes))}`),
          signal,
        );
        await writeArchive(path, head, entries);
        progress("");
        if (options.json) printJson({ file: path, tenants: tenants.length, releases: releases.length });
        else
          process.stdout.write(
            `${pc.green("wrote")} ${tenants.length} tenants and ${releases.length} releases\n${path}\n`,
          );
      }),
    );

  asVerb(state.command("restore"))
    .description(
      "apply the tenants of a dump, with their releases; what is there with another spec stays as it is",
    )
    .argument("<file>", "a dump")
    .addOption(new Option("--overwrite", "give tenants that are there the spec of the dump"))
    .action((file: string, options: VerbOptions & { overwrite?: boolean }) =>
      withWarren(options, async (warren, signal) => {
        const { overwrite = false } = options;
        const restored = await restore(warren, resolve(file), { overwrite, signal, onEntry: progress });
        progress("");
        const { tenants, releases, unchanged, kept, missingNodes } = restored;
        if (options.json) printJson(restored);
        else
          process.stdout.write(
            `${pc.green("restored")} ${tenants} tenants and ${releases} releases; ${unchanged} tenants were there already\n`,
          );
        for (const node of missingNodes)
          process.stderr.write(
            `${errorColors.yellow("warning:")} node ${node} is cordoned in the dump and has not joined: cordon it once it has\n`,
          );
        if (kept.length === 0) return;
        const named = `${kept.slice(0, 5).join(", ")}${kept.length > 5 ? ` and ${kept.length - 5} more` : ""}`;
        throw new UserError(
          `${kept.length} tenants are there with another spec and were left as they are: ${named}; --overwrite gives them that of the dump`,
          exitCodes.refused,
        );
      }),
    );

  for (const command of state.commands) command.exitOverride();
}
