/** What may come next on a command line, from the program itself, so that it is never behind. Pure. */
import type { Argument, Command, Option } from "commander";

/** Names that only a running cluster, or the file system, knows. */
export type Kind = "tenants" | "nodes" | "files" | "directories";

export interface Candidates {
  readonly words: readonly { readonly word: string; readonly summary: string }[];
  readonly kind?: Kind;
}

/** By the placeholder of an argument or of an option's value. */
const kinds: Readonly<Record<string, Kind>> = {
  tenant: "tenants",
  tenants: "tenants",
  node: "nodes",
  dir: "directories",
  directory: "directories",
  file: "files",
};

const nothing: Candidates = { words: [] };

/** @param words those after the program's name; the last one is being typed, and may be empty */
export function candidates(program: Command, words: readonly string[]): Candidates {
  const typed = words.at(-1) ?? "";
  let command = program;
  let positional = 0;
  let awaits: Option | undefined;
  for (const word of words.slice(0, -1)) {
    if (awaits) {
      awaits = undefined;
      continue;
    }
    if (word === "--") return nothing; // what comes is an app's own command
    if (word.startsWith("-")) {
      const option = optionOf(command, word);
      if (option && takesValue(option) && !word.includes("=")) awaits = option;
      continue;
    }
    const verb = positional === 0 ? verbOf(command, word) : undefined;
    if (verb) command = verb;
    else positional++;
  }
  if (awaits) return valuesOf(awaits);
  if (typed.startsWith("-")) return optionsOf(command);
  if (command.commands.length > 0 && positional === 0) return verbsOf(command);
  return argumentsOf(command.registeredArguments, positional);
}

function verbOf(command: Command, word: string): Command | undefined {
  return command.commands.find((one) => one.name() === word || one.aliases().includes(word));
}

function verbsOf(command: Command): Candidates {
  const visible = command.createHelp().visibleCommands(command);
  return { words: visible.map((one) => ({ word: one.name(), summary: one.description() })) };
}

function optionOf(command: Command, word: string): Option | undefined {
  const [name] = word.split("=");
  return command.options.find(({ long, short }) => long === name || short === name);
}

const takesValue = ({ required, optional }: Option): boolean => required || optional;

function optionsOf(command: Command): Candidates {
  const words = command.options
    .filter(({ hidden }) => !hidden)
    .map(({ long, short, description }) => ({ word: long ?? short ?? "", summary: description }));
  return { words: [...words, { word: "--help", summary: "display help for command" }] };
}

function valuesOf({ argChoices, flags }: Option): Candidates {
  if (argChoices) return choices(argChoices);
  return { words: [], kind: kinds[/[<[](\w+)/.exec(flags)?.[1] ?? ""] };
}

/** The last argument may take all that come. */
function argumentsOf(all: readonly Argument[], at: number): Candidates {
  const argument = all[at] ?? (all.at(-1)?.variadic ? all.at(-1) : undefined);
  if (!argument) return nothing;
  if (argument.argChoices) return choices(argument.argChoices);
  return { words: [], kind: kinds[argument.name()] };
}

function choices(values: readonly string[]): Candidates {
  return { words: values.map((word) => ({ word, summary: "" })) };
}
