/** `warren deploy DIR`: pack, upload, apply, restart if it is live. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { InstanceState } from "@warren/proto/common";
import { type Command, Option } from "commander";
import pc from "picocolors";
import { exitCodes, UserError } from "../exit.ts";
import { rungNames } from "../names.ts";
import { bytes, printJson, progress } from "../output.ts";
import { missingDependencies, readSpec, readyKinds, type SpecFlags } from "../spec.ts";
import {
  asVerb,
  coresOption,
  countOption,
  durationOption,
  sizeOption,
  type VerbOptions,
  withWarren,
} from "../verb.ts";

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
    .option("--no-restart", "leave a live instance on the release before")
    .action(async (dir: string, options: VerbOptions & SpecFlags & { restart: boolean }) => {
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
        const { instances } = await warren.scheduler.listInstances({ tenant: spec.key });
        const live = instances.some(
          ({ state }) => state > InstanceState.PENDING && state < InstanceState.STOPPING,
        );
        const restarted = options.restart && live;
        if (restarted) await warren.scheduler.restart({ tenant: spec.key }, { timeoutMs: 60_000, signal });
        if (options.json) {
          printJson({
            tenant: spec.key,
            release: release.digest,
            sizeBytes: Number(release.sizeBytes),
            url: tenant.url,
            restarted,
          });
          return;
        }
        process.stdout.write(
          `${pc.green("deployed")} ${spec.key} ${pc.dim(`${release.digest.slice(7, 19)} ${bytes(Number(release.sizeBytes))}`)}${restarted ? ", restarted" : ""}\n${tenant.url}\n`,
        );
      });
    });
}
