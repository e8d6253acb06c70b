/** `warren ensure | stop | restart | clear-backoff | rm`: one tenant's life. */
import { VolumesOnDelete } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "picocolors";
import { UserError } from "../exit.ts";
import { printJson } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

export function instanceCommands(program: Command): void {
  const say = (options: VerbOptions, json: unknown, text: string) => {
    if (options.json) printJson(json);
    else process.stdout.write(`${text}\n`);
  };

  asVerb(program.command("ensure"))
    .description("make sure that a tenant has a ready instance, starting one if need be")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { url, instance, endpoint, cold } = await warren.scheduler.ensure(
          { tenant },
          { signal, timeoutMs: options.timeout ?? 30_000 },
        );
        const direct = endpoint ? `${endpoint.host}:${endpoint.port}` : undefined;
        say(
          options,
          { tenant, url, instance: instance?.id, node: instance?.node, endpoint: direct, cold },
          `${pc.green(cold ? "started" : "ready")} ${tenant} ${pc.dim(`${instance?.id} on ${instance?.node}`)}\n${url}`,
        );
      }),
    );

  asVerb(program.command("stop"))
    .description("drain and stop a tenant's instances; the next request starts it again")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { stopped } = await warren.scheduler.stop(
          { tenant },
          { signal, timeoutMs: options.timeout ?? 60_000 },
        );
        const ids = stopped.map(({ id }) => id);
        say(
          options,
          { tenant, stopped: ids },
          ids.length
            ? `${pc.green("stopped")} ${tenant} ${pc.dim(ids.join(" "))}`
            : `${tenant} was not running`,
        );
      }),
    );

  asVerb(program.command("restart"))
    .description("stop a tenant's instance and start a new one on the newest spec")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { url, instance } = await warren.scheduler.restart(
          { tenant },
          { signal, timeoutMs: options.timeout ?? 60_000 },
        );
        say(
          options,
          { tenant, url, instance: instance?.id, node: instance?.node },
          `${pc.green("restarted")} ${tenant} ${pc.dim(`${instance?.id} on ${instance?.node}`)}\n${url}`,
        );
      }),
    );

  asVerb(program.command("clear-backoff"))
    .description("let a tenant that failed be started at once")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren) => {
        await warren.scheduler.clearBackoff({ tenant });
        say(options, { tenant, cleared: true }, `${pc.green("cleared")} ${tenant} may be started at once`);
      }),
    );

  asVerb(program.command("rm"))
    .description("stop a tenant and forget it; one that has volumes only if it is said what becomes of them")
    .argument("<tenant>")
    .option(
      "--keep-volumes",
      "its volumes stay: a tenant of that name that has them in its spec gets them again",
    )
    .option("--remove-volumes", "its volumes go with it, with their backups")
    .action((tenant: string, options: VerbOptions & { keepVolumes?: boolean; removeVolumes?: boolean }) =>
      withWarren(options, async (warren, signal) => {
        if (options.keepVolumes && options.removeVolumes)
          throw new UserError("--keep-volumes and --remove-volumes contradict each other: give one of them");
        const volumes = options.keepVolumes
          ? VolumesOnDelete.KEEP
          : options.removeVolumes
            ? VolumesOnDelete.REMOVE
            : VolumesOnDelete.UNSPECIFIED;
        await warren.scheduler.deleteTenant(
          { tenant, volumes },
          { signal, timeoutMs: options.timeout ?? 60_000 },
        );
        say(options, { tenant, removed: true }, `${pc.green("removed")} ${tenant}`);
      }),
    );
}
