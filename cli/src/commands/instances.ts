/** `warren ensure | stop | restart | clear-backoff | rm`: one tenant's life. */
import type { Warren } from "@warren/client";
import { fromDuration } from "@warren/common/time";
import type { TenantSpec } from "@warren/proto/common";
import { VolumesOnDelete } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "../colors.ts";
import { UserError } from "../exit.ts";
import { printJson } from "../output.ts";
import { startPatience } from "../patience.ts";
import { servesNone } from "../served.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

/** Of a spec that says nothing; what a stop takes besides is in the slack. */
const defaultMs = 5_000;
const slackMs = 60_000;

/** How long the end of a tenant's instances may take by its spec, in ms: the drain, the grace, and some time besides. */
async function stopMs(
  warren: Warren,
  tenant: string,
  signal: AbortSignal,
  more: (spec: TenantSpec | undefined) => number = () => 0,
): Promise<number> {
  const { spec } = (await warren.scheduler.getTenant({ tenant }, { signal })).tenant ?? {};
  const { drain, grace } = spec?.stop ?? {};
  return fromDuration(drain, defaultMs) + fromDuration(grace, defaultMs) + slackMs + more(spec);
}

export function instanceCommands(program: Command): void {
  const say = (options: VerbOptions, json: unknown, text: string) => {
    if (options.json) printJson(json);
    else process.stdout.write(`${text}\n`);
  };

  asVerb(program.command("ensure").alias("start"), "longer than the start may take")
    .description("make sure that a tenant has a ready instance, starting one if need be")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { url, instance, endpoint, cold } = await warren.scheduler.ensure(
          { tenant },
          { signal, timeoutMs: options.timeout ?? (await startPatience(warren, tenant)) },
        );
        const direct = endpoint ? `${endpoint.host}:${endpoint.port}` : undefined;
        say(
          options,
          { tenant, url, instance: instance?.id, node: instance?.node, endpoint: direct, cold },
          `${pc.green(cold ? "started" : "ready")} ${tenant} ${pc.dim(`${instance?.id} on ${instance?.node}`)}\n${url || servesNone}`,
        );
      }),
    );

  asVerb(program.command("stop"))
    .description("drain and stop a tenant's instances; the next request starts it again")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const timeoutMs = options.timeout ?? (await stopMs(warren, tenant, signal));
        const { stopped } = await warren.scheduler.stop({ tenant }, { signal, timeoutMs });
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

  asVerb(program.command("restart"), "longer than stop and start may take")
    .description("stop a tenant's instance and start a new one on the newest spec")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const timeoutMs =
          options.timeout ?? (await stopMs(warren, tenant, signal)) + (await startPatience(warren, tenant));
        const { url, instance } = await warren.scheduler.restart({ tenant }, { signal, timeoutMs });
        say(
          options,
          { tenant, url, instance: instance?.id, node: instance?.node },
          `${pc.green("restarted")} ${tenant} ${pc.dim(`${instance?.id} on ${instance?.node}`)}\n${url || servesNone}`,
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

  asVerb(program.command("rm").alias("delete"))
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
        const timeoutMs = options.timeout ?? (await stopMs(warren, tenant, signal));
        await warren.scheduler.deleteTenant({ tenant, volumes }, { signal, timeoutMs });
        say(options, { tenant, removed: true }, `${pc.green("removed")} ${tenant}`);
      }),
    );
}
