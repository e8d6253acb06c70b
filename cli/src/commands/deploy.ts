/** `warren deploy DIR`: pack, upload, apply, and wait until it has taken over from what was live. */
import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { ConnectError, type Listing, type Warren } from "@warren/client";
import { findEntry, NothingToRunError } from "@warren/common/entry";
import { type Command, Option } from "commander";
import { checkSpec } from "../check-spec.ts";
import pc, { errorColors } from "../colors.ts";
import { commandArgument, commandOf, noDirectory } from "../command-words.ts";
import { exitCodes, UserError } from "../exit.ts";
import { rungNames } from "../names.ts";
import { bytes, printJson, progress } from "../output.ts";
import { servesNone } from "../served.ts";
import { missingDependencies, readSpec, readyKinds, restartPolicies, type SpecFlags } from "../spec.ts";
import { escaped } from "../terminal.ts";
import {
  asVerb,
  collectOption,
  coresOption,
  countOption,
  durationOption,
  sizeOption,
  type VerbOptions,
  withWarren,
} from "../verb.ts";
import { followRollout } from "./rollouts.ts";

/** The flags that set fields of a spec: of `deploy` and of `set`. */
export function specOptions(command: Command): Command {
  return command
    .option("--env <NAME=value>", "environment of the app; may be repeated", collectOption)
    .option(
      "--env-file <file>",
      "take a dotenv file into the environment, '-' for stdin; may be repeated, --env wins",
      collectOption,
    )
    .option(
      "--command <arg...>",
      "command to run instead of the app's start script or entry; better as -- COMMAND",
    )
    .option("--idle <duration>", "stop after so long without a request", durationOption)
    .option("--keep-warm", "never stop for being idle")
    .option("--ready <path>", "HTTP path that must answer 200 to 399 before the app counts as ready")
    .addOption(
      new Option(
        "--ready-kind <kind>",
        "what it is ready by: its port, ready() of @warren/worker, or nothing (default: port)",
      ).choices(readyKinds),
    )
    .option(
      "--ready-timeout <duration>",
      "how long it may take to become ready (default: 30s)",
      durationOption,
    )
    .option("--live <path>", "HTTP path that must go on answering 200 to 399, else the app is stopped")
    .option("--live-interval <duration>", "between two looks at that path (default: 10s)", durationOption)
    .option(
      "--heartbeat <duration>",
      "longest silence between two heartbeat() of @warren/worker",
      durationOption,
    )
    .addOption(
      new Option(
        "--isolation <rung>",
        "rung that it runs on; auto: the highest that its node has (default: auto)",
      ).choices(rungNames),
    )
    .option("--memory <size>", "most memory; more and it is killed (default: no limit)", sizeOption)
    .option("--cpu <cores>", "most CPU: 0.5, or 500m (default: no limit)", coresOption)
    .option("--pids <n>", "most processes and threads (default: its rung's)", countOption)
    .option("--open-files <n>", "most open files per process (default: its rung's)", countOption)
    .option(
      "--disk <size>",
      "most that its writable directory may hold; more and it is stopped (default: no limit)",
      sizeOption,
    )
    .option(
      "--volume <name:path[:size]>",
      "directory of the app's own whose content stays (size: 1GiB); one instance at most then; may be repeated",
      collectOption,
    )
    .option(
      "--writable <path>",
      "directory of the release that the app may write to, emptied at each start; may be repeated",
      collectOption,
    )
    .option(
      "--freeze <duration>",
      "freeze after so long without a request (default: the cluster's)",
      durationOption,
    )
    .option(
      "--page-out <duration>",
      "page a frozen one out after so long (default: the cluster's)",
      durationOption,
    )
    .option("--never-freeze", "never freeze: its timers and connections go on between requests")
    .option("--adaptive", "learn the gaps between requests, and stop sooner or later accordingly")
    .option("--min <n>", "instances kept at all times (default: 0)", countOption)
    .option("--max <n>", "most instances (default: 1)", countOption)
    .option("--concurrency <n>", "requests in flight that one instance is to have (default: 50)", countOption)
    .option(
      "--max-per-node <n>",
      "most instances on one node; 1 spreads them (default: no bound)",
      countOption,
    )
    .option("--priority <n>", "who comes first when places are short, 0 to 100 (default: 0)", countOption)
    .addOption(
      new Option("--restart <policy>", "start again what ended by itself (default: never)").choices(
        restartPolicies,
      ),
    )
    .option("--batch <n>", "instances replaced at a time (default: 1)", countOption)
    .option(
      "--stop-first",
      "where there is no place for two, stop the old instance before the new one starts",
    )
    .option("--at-most-one", "never two instances of a slot at once, even when a node is lost")
    .option(
      "--usage-limit <METER=n/PERIOD>",
      "most that it may use, like cpu-seconds=3600/day; what has reached it is stopped until then; may be repeated",
      collectOption,
    );
}

export function deployCommand(program: Command): void {
  const command = asVerb(program.command("deploy"))
    .description("pack a directory with its node_modules, upload it, and make it the tenant's release")
    .argument("[dir]", "directory of the app")
    .argument(...commandArgument)
    .option("--name <key>", "the tenant's name (default: package.json's name, else the directory's)")
    .option("--spec <file>", "a JSON file with settings as in package.json#warren, over that");
  specOptions(command)
    .option("--no-wait", "do not wait until live instances are replaced, or the release is on nodes")
    .showHelpAfterError(
      "(add --help for the usage; flags of the app's command go after --: warren deploy DIR -- bun --smol x.ts)",
    )
    .addHelpText("after", whatStaysHelp)
    .action(async (dir: string | undefined, words: string[], options: DeployOptions) => {
      if (dir === undefined) throw new UserError(noDirectory(options.command));
      const ownCommand = commandOf(words, options.command);
      const directory = resolve(dir);
      const found = await stat(directory).catch(() => undefined);
      if (!found) throw new UserError(`${directory} does not exist`, exitCodes.notFound);
      if (!found.isDirectory()) throw new UserError(`${directory} is not a directory`);
      const spec = readSpec(directory, { ...options, command: ownCommand });
      await checkSpec(spec);
      if (spec.command.length === 0) checkEntry(directory);
      if (missingDependencies(directory)) {
        process.stderr.write(
          `${errorColors.yellow("warning:")} package.json names dependencies, but there is no node_modules: run 'bun install' there first\n`,
        );
      }
      await withWarren(options, async (warren, signal) => {
        const release = await warren.upload(spec.key, directory, {
          signal,
          manifest: { bunVersion: Bun.version, arch: process.arch },
          onListed: once(sayWhatStays),
          onProgress: ({ entries, bytes: size }) => progress(`packing: ${entries} files, ${bytes(size)}`),
        });
        progress("");
        const tenant = await warren.apply({ ...spec, source: { case: "release", value: release.digest } });
        const replaced = options.wait ? await followRollout(warren, tenant, signal, options.timeout) : 0;
        if (options.wait && replaced === 0) await prefetch(warren, spec.key, signal);
        if (options.json) {
          printJson({
            tenant: spec.key,
            release: release.digest,
            sizeBytes: Number(release.sizeBytes),
            url: tenant.url,
            replaced,
          });
          return;
        }
        process.stdout.write(
          `${pc.green("deployed")} ${spec.key} ${pc.dim(`${release.digest.slice(7, 19)} ${bytes(Number(release.sizeBytes))}`)}${replaced ? `, ${replaced} replaced` : ""}\n${tenant.url || servesNone}\n`,
        );
      });
    });
}

/** A release that nobody runs yet is brought to nodes now, so that its first visitor does not wait for that. */
async function prefetch(warren: Warren, tenant: string, signal: AbortSignal): Promise<void> {
  progress("bringing the release to nodes");
  const call = { signal, timeoutMs: prefetchMs };
  const { failed } = await warren.scheduler.prefetchRelease({ tenant }, call).catch((error: unknown) => {
    signal.throwIfAborted();
    return { failed: { "the nodes": ConnectError.from(error).rawMessage } };
  });
  progress("");
  for (const [node, why] of Object.entries(failed)) {
    process.stderr.write(
      `${errorColors.yellow("warning:")} the release is not on ${node} yet (${escaped(why)}): it comes with the first start\n`,
    );
  }
}

const prefetchMs = 120_000;

interface DeployOptions extends VerbOptions, SpecFlags {
  readonly wait: boolean;
}

const whatStaysHelp = `
What is uploaded: everything below the directory, node_modules included, but version control (.git), dotenv files
(.env, .env.*; not .env.example, .sample, .template) and settings that may hold a registry's token (.npmrc, .yarnrc,
.yarnrc.yml). A file .warrenignore there, in the syntax of .gitignore, leaves out more, or takes something along again
(!.env.public, !.npmrc). .gitignore is not read: it lists what a build makes, which runs.`;

/** Said once, although an upload that is made again packs again. */
function once<T>(say: (value: T) => void): (value: T) => void {
  let said = false;
  return (value) => {
    if (!said) say(value);
    said = true;
  };
}

/** Files that the app will not find, and those that it has from elsewhere. */
function sayWhatStays({ dotenv, registry, ignored, followed }: Listing): void {
  progress("");
  const say = (text: string) => process.stderr.write(`${errorColors.dim(escaped(text))}\n`);
  if (dotenv.length > 0) say(`${stay(dotenv)} here: --env-file FILE takes one into the app's environment`);
  if (registry.length > 0)
    say(
      `${stay(registry)} here, since a registry's token may be inside: !${basename(registry[0]!)} in .warrenignore takes it along`,
    );
  if (ignored > 0) say(`.warrenignore leaves out ${ignored} files and directories`);
  for (const { name, from } of followed) say(`${name} is a link to ${from}: its files are taken along`);
}

/** ".env, api/.env stay" */
function stay(names: readonly string[]): string {
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return `${names.slice(0, 5).join(", ")}${more} ${names.length === 1 ? "stays" : "stay"}`;
}

/** Before the upload, by the same rules by which the agent finds what to run. */
function checkEntry(directory: string): void {
  try {
    findEntry(directory);
  } catch (error) {
    if (!(error instanceof NothingToRunError)) throw error;
    throw new UserError(`${directory}: ${error.message}`);
  }
}
