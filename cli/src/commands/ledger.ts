/** `warren ledger dump | restore | verify`: snapshots of what is billed, on the machine that has the ledger. */
import { join, resolve } from "node:path";
import { type LedgerLocation, openLedger, readLedger } from "@warren/metering/ledger/open";
import { readSnapshot, writeSnapshot } from "@warren/metering/snapshot/file";
import { verifyLedger } from "@warren/metering/snapshot/verify";
import { type JournalLocation, openReader, sourceOf } from "@warren/metering/source";
import { type Command, Option } from "commander";
import { defaultStateDirectory } from "../cluster.ts";
import pc from "../colors.ts";
import { exitCodes, UserError } from "../exit.ts";
import { printJson, progress } from "../output.ts";

interface LedgerOptions {
  readonly state?: string;
  readonly ledger?: string;
  readonly json?: boolean;
}

interface VerifyFlags extends LedgerOptions {
  readonly journal?: string;
  readonly nats?: string;
}

export function ledgerCommand(program: Command): void {
  const ledger = program
    .command("ledger")
    .description("snapshots of the ledger of what was used, on the machine that has it");

  asLedgerVerb(ledger.command("dump"))
    .description("write all of it, as it stands at this moment, to a file; metering may go on")
    .argument("<file>", "to be written; - is standard output")
    .action(async (file: string, options: LedgerOptions) => {
      const rows = await writeSnapshot(file, readLedger(locationOf(options)), Date.now(), shownRows("wrote"));
      progress("");
      if (options.json && file !== "-") printJson({ file, rows });
      else if (file !== "-") process.stdout.write(`${pc.green("wrote")} ${rows} rows\n${resolve(file)}\n`);
    });

  asLedgerVerb(ledger.command("restore"))
    .description(
      "fill an empty ledger of either kind from a snapshot; metering then counts what came after it",
    )
    .argument("<file>", "a snapshot; - is standard input")
    .action(async (file: string, options: LedgerOptions) => {
      await using target = await openLedger(locationOf(options));
      let rows = 0;
      const counted = async function* () {
        for await (const row of readSnapshot(file, shownRows("read"))) {
          rows++;
          yield row;
        }
      };
      await target.restore(counted());
      progress("");
      if (options.json) printJson({ rows });
      else process.stdout.write(`${pc.green("restored")} ${rows} rows\n`);
    });

  asLedgerVerb(ledger.command("verify"))
    .description("count a snapshot and the journal's records behind it again, and compare with the ledger")
    .argument("[file]", "a snapshot; without one the journal must go back to its beginning")
    .addOption(
      new Option(
        "--journal <dir>",
        "the scheduler's state directory, for the embedded journal (default: the cell's)",
      ).env("WARREN_METERING_JOURNAL"),
    )
    .addOption(new Option("--nats <urls>", "NATS server that carries the events").env("WARREN_METERING_NATS"))
    .action((file: string | undefined, options: VerifyFlags) => verify(file, options));

  for (const command of ledger.commands) command.exitOverride();
}

async function verify(file: string | undefined, options: VerifyFlags): Promise<void> {
  const stop = new AbortController();
  const onSignal = () => stop.abort(new UserError("interrupted", exitCodes.interrupted));
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  const journal = journalOf(options);
  await using reader = await openReader(journal);
  const { records, rows, difference } = await verifyLedger({
    live: readLedger(locationOf(options)),
    from: file === undefined ? undefined : readSnapshot(file),
    reader,
    source: sourceOf(journal),
    signal: stop.signal,
    progress: (counted, of) => progress(`counted ${counted} of ${of} records`),
  });
  progress("");
  if (options.json) printJson({ equal: difference === undefined, records, rows, difference });
  if (difference !== undefined) throw new UserError(difference, exitCodes.failed);
  if (options.json) return;
  process.stdout.write(`${pc.green("equal")}: ${rows} rows, ${records} records counted again\n`);
}

function asLedgerVerb(command: Command): Command {
  return command
    .option("--state <dir>", "metering's state directory (default: metering/ in the cell's state directory)")
    .addOption(
      new Option("--ledger <url>", "the PostgreSQL that holds it instead; arguments are public").env(
        "WARREN_METERING_LEDGER",
      ),
    )
    .option("--json", "print JSON");
}

function locationOf({ state, ledger }: LedgerOptions): LedgerLocation {
  if (state === undefined && ledger !== undefined) return { ledgerUrl: ledger };
  return { stateDirectory: state === undefined ? join(defaultStateDirectory(), "metering") : resolve(state) };
}

function journalOf({ journal, nats }: VerifyFlags): JournalLocation {
  if (journal === undefined && nats !== undefined) return { natsUrl: nats };
  return {
    journalDirectory: journal === undefined ? join(defaultStateDirectory(), "scheduler") : resolve(journal),
  };
}

const shownRows = (done: string) => (rows: number) => progress(`${done} ${rows} rows`);
