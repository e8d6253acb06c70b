/** The one executable: runs each process, and the operator's verbs. */
import { Command, CommanderError } from "commander";
import { caCommand } from "./commands/ca.ts";
import { deployCommand } from "./commands/deploy.ts";
import { envCommand } from "./commands/env.ts";
import { exportCommand } from "./commands/export.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { instanceCommands } from "./commands/instances.ts";
import { invoiceCommand } from "./commands/invoice.ts";
import { ledgerCommand } from "./commands/ledger.ts";
import { listCommands } from "./commands/lists.ts";
import { nodeCommand } from "./commands/nodes.ts";
import { placingCommands } from "./commands/placing.ts";
import { rolloutCommands } from "./commands/rollouts.ts";
import { setCommand } from "./commands/set.ts";
import { streamCommands } from "./commands/streams.ts";
import { tokenCommand } from "./commands/token.ts";
import { topCommands } from "./commands/top.ts";
import { usageCommand } from "./commands/usage.ts";
import { volumeCommand } from "./commands/volumes.ts";
import { completionCommand } from "./completion/command.ts";
import { exitCodes, exitCodesHelp, fail, Interrupted } from "./exit.ts";
import { processCommands } from "./processes/index.ts";
import { stateCommand } from "./state/command.ts";
import { upCommand } from "./up/command.ts";
import { version } from "./version.ts";

export const program = new Command("warren")
  .description(
    "Warren runs many small Bun apps (tenants) on many hosts: cold until used, awake in milliseconds.",
  )
  .version(version, "-V, --version")
  .showHelpAfterError("(add --help for the usage)")
  .showSuggestionAfterError()
  .addHelpText("after", exitCodesHelp)
  .exitOverride();

upCommand(program);
deployCommand(program);
setCommand(program);
envCommand(program);
inspectCommand(program);
instanceCommands(program);
listCommands(program);
nodeCommand(program);
volumeCommand(program);
ledgerCommand(program);
stateCommand(program);
placingCommands(program);
rolloutCommands(program);
topCommands(program);
streamCommands(program);
usageCommand(program);
invoiceCommand(program);
exportCommand(program);
processCommands(program);
caCommand(program);
tokenCommand(program);
completionCommand(program);
for (const command of program.commands) command.exitOverride();

// A test that looks at the verbs runs none.
if (import.meta.main) await main();

async function main(): Promise<void> {
  // `warren events | head`: the reader has read enough.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(exitCodes.ok);
  });

  // As many programs have it; commander knows one short flag only.
  const argv = process.argv.map((word, i) => (i === 2 && word === "-v" ? "-V" : word));

  try {
    await program.parseAsync(argv);
    // A connection to a scheduler that does not answer would keep the process for ever.
    process.stdout.write("", () => process.exit(exitCodes.ok));
  } catch (error) {
    if (error instanceof Interrupted) process.stdout.write("", () => process.exit(error.exitCode));
    else if (!(error instanceof CommanderError)) fail(error);
    // Commander has said what is wrong; help and version were asked for.
    else process.exit(error.exitCode === 0 ? exitCodes.ok : exitCodes.usage);
  }
}
