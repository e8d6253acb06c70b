/** `warren completion SHELL`, and `warren __complete -- WORDS…`, which the shells ask. */
import { Argument, type Command } from "commander";
import { openWarren } from "../cluster.ts";
import { candidates, type Kind } from "./candidates.ts";
import { scripts } from "./scripts.ts";

/** A cluster that does not answer at once keeps nobody from typing. */
const clusterMs = 1_000;
/** More names than a person looks through. */
const mostNames = 1_000;

export function completionCommand(program: Command): void {
  const shells = Object.keys(scripts);
  program
    .command("completion")
    .description(
      'print a completion script for bash, zsh or fish; add it to your shell: eval "$(warren completion bash)", or warren completion fish | source',
    )
    .addArgument(new Argument("<shell>").choices(shells))
    .action((shell: string) => {
      process.stdout.write(scripts[shell]!);
    });

  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .helpOption(false)
    .action(async (_words: unknown, _options: unknown, command: Command) => {
      const words = command.args.length > 0 ? command.args : [""];
      const { words: found, kind } = candidates(program, words);
      const lines = found.map(({ word, summary }) => `${word}\t${summary.replaceAll(/\s+/g, " ")}`);
      if (kind) lines.push(...(await namesOf(kind, stateOf(words))));
      process.stdout.write(lines.map((line) => `${line}\n`).join(""));
    });
}

/** The cluster that the line names. */
function stateOf(words: readonly string[]): string | undefined {
  const at = words.indexOf("--state");
  return at >= 0 && at < words.length - 1 ? words[at + 1] : undefined;
}

async function namesOf(kind: Kind, state: string | undefined): Promise<string[]> {
  if (kind === "files" || kind === "directories") return [`:${kind}`];
  try {
    const warren = openWarren({ state, timeout: clusterMs });
    try {
      if (kind === "nodes") {
        const { nodes } = await warren.scheduler.listNodes({});
        return nodes.map(({ name }) => `${name}\t`);
      }
      const { tenants } = await warren.scheduler.listTenants({ pageSize: mostNames });
      return tenants.map(({ spec }) => `${spec?.key}\t`);
    } finally {
      warren.close();
    }
  } catch {
    return []; // no cluster, no names: the verb itself says so
  }
}
