/** `warren deploy DIR`: pack, upload, apply, and wait until it has taken over from what was live. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import pc from "picocolors";
import { exitCodes, UserError } from "../exit.ts";
import { rungNames } from "../names.ts";
import { bytes, printJson, progress } from "../output.ts";
import { missingDependencies, readSpec, readyKinds, restartPolicies, type SpecFlags } from "../spec.ts";
import {
  asVerb,
  coresOption,
  countOption,
  durationOption,
  sizeOption,
  type VerbOptions,
  withWarren,
} from "../verb.ts";
import { followRollout } from "./rollouts.ts";

const collect = (value: string, before: string[]) => [...before, value];

export function deployCommand(program: Command): void {
  asVerb(program.command("deploy"))
    .description("pack a directory with its node_modules, upload it, and make it the tenant's release")
    .argument("<dir>", "directory of the app")
    .option("--name <key>", "the tenant's name (default: package.json's name, else the directory's)")
    .option("--spec <file>", "TenantSpec as protojson, over package.json#warren")
    .option("--env <NAME=value>", "environment of the app; may be repeated", collect, [])
    .option("--command <arg...>", "command to run instead of the entry of package.json")
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
      collect,
      [],
    )
    .option(
      "--writable <path>",
      "directory of the release that the app may write to, emptied at each start; may be repeated",
      collect,
      [],
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
      collect,
      [],
    )
    .option("--no-wait", "do not wait until live instances are replaced")
    .action(async (dir: string, options: VerbOptions & SpecFlags & { wait: boolean }) => {
      const directory = resolve(dir);
      const found = await stat(directory).catch(() => undefined);
      if (!found) throw new UserError(`${directory} does not exist`, exitCodes.notFound);
      if (!found.isDirectory()) throw new UserError(`${directory} is not a directory`);
      const spec = readSpec(directory, options);
      if (missingDependencies(directory)) {
        process.stderr.write(
          `${pc.yellow("warning:")} package.json names dependencies, but there is no node_modules: run 'bun install' there first\n`,
        );
      }
      await withWarren(options, async (warren, signal) => {
        const release = await warren.upload(spec.key, directory, {
          signal,
          manifest: { bunVersion: Bun.version, arch: process.arch },
          onProgress: ({ entries, bytes: size }) => progress(`packing: ${entries} files, ${bytes(size)}`),
        });
        progress("");
        const tenant = await warren.apply({ ...spec, source: { case: "release", value: release.digest } });
        const replaced = options.wait ? await followRollout(warren, tenant, signal, options.timeout) : 0;
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
          `${pc.green("deployed")} ${spec.key} ${pc.dim(`${release.digest.slice(7, 19)} ${bytes(Number(release.sizeBytes))}`)}${replaced ? `, ${replaced} replaced` : ""}\n${tenant.url}\n`,
        );
      });
    });
}
