/** `warren ensure | stop | restart | clear-backoff | rm`: one tenant's life. */
import type { Command } from "commander";
import pc from "picocolors";
import { printJson } from "../output.ts";
import { startPatience } from "../patience.ts";
import { servesNone } from "../served.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

const stopPatienceMs = 60_000;

export function instanceCommands(program: Command): void {
  const say = (options: VerbOptions, json: unknown, text: string) => {
    if (options.json) printJson(json);
    else process.stdout.write(`${text}\n`);
  };

  asVerb(program.command("ensure"), "longer than the start may take")
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

  asVerb(program.command("restart"), "longer than stop and start may take")
    .description("stop a tenant's instance and start a new one on the newest spec")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        const { url, instance } = await warren.scheduler.restart(
          { tenant },
          { signal, timeoutMs: options.timeout ?? stopPatienceMs + (await startPatience(warren, tenant)) },
        );
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

  asVerb(program.command("rm"))
    .description("stop a tenant and forget it")
    .argument("<tenant>")
    .action((tenant: string, options: VerbOptions) =>
      withWarren(options, async (warren, signal) => {
        await warren.scheduler.deleteTenant({ tenant }, { signal, timeoutMs: options.timeout ?? 60_000 });
        say(options, { tenant, removed: true }, `${pc.green("removed")} ${tenant}`);
      }),
    );
}
