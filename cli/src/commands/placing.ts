/** `warren cordon | uncordon | drain | forget`: where new instances may go. */
import { pause, toDuration } from "@warren/common/time";
import { DisplacedVolumeSchema } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "../colors.ts";
import { messageJson, printJson, progress } from "../output.ts";
import { asVerb, durationOption, type VerbOptions, withWarren } from "../verb.ts";
import { agoText } from "./volumes.ts";

/** As the scheduler's own default. */
const drainMs = 600_000;
/** For what is left at the deadline: its own drain and grace. */
const drainSlackMs = 60_000;

export function placingCommands(program: Command): void {
  const simple = (
    name: "cordon" | "uncordon",
    description: string,
    call: "cordonNode" | "uncordonNode",
    done: string,
  ) =>
    asVerb(program.command(name))
      .description(description)
      .argument("<node>")
      .action((node: string, options: VerbOptions) =>
        withWarren(options, async (warren) => {
          await warren.scheduler[call]({ node });
          if (options.json) printJson({ node, done });
          else process.stdout.write(`${pc.green(done)} ${node}\n`);
        }),
      );
  simple("cordon", "place no new instance on a node", "cordonNode", "cordoned");
  simple("uncordon", "place instances on a node again; gives up its drain", "uncordonNode", "uncordoned");
  asVerb(program.command("forget"))
    .description(
      "remove a node for good: you vouch that nothing runs on it; its volumes come back elsewhere from their backups; refused while its agent reports",
    )
    .argument("<node>")
    .option("--force", "although its agent reports: its instances end, and it joins again as a new node")
    .option("--lose-volumes", "also if it holds volumes of which there is no backup: they begin empty")
    .action((node: string, options: VerbOptions & { force?: boolean; loseVolumes?: boolean }) =>
      withWarren(options, async (warren) => {
        const { force, loseVolumes } = options;
        const { volumes } = await warren.scheduler.forgetNode({ node, force, loseVolumes });
        if (options.json) {
          printJson({
            node,
            done: "forgot",
            volumes: volumes.map((one) => messageJson(DisplacedVolumeSchema, one)),
          });
          return;
        }
        process.stdout.write(`${pc.green("forgot")} ${node}\n`);
        for (const volume of volumes) {
          const back = volume.asOf
            ? `comes back with the next start as it was ${agoText(volume, Date.now())}`
            : "is lost, and begins empty";
          process.stdout.write(`volume ${volume.name} of ${volume.tenant} ${back}\n`);
        }
      }),
    );

  asVerb(program.command("drain"))
    .description("empty a node: what is used is moved, its successor ready first; what idles is stopped")
    .argument("<node>")
    .option("--deadline <duration>", "after it, what is left is stopped (default: 10m)", durationOption)
    .action((node: string, options: VerbOptions & { deadline?: number }) =>
      withWarren(options, async (warren, signal) => {
        const within = options.deadline ?? drainMs;
        const looking = new AbortController();
        const show = async () => {
          while (!looking.signal.aborted && !signal.aborted) {
            const { nodes } = await warren.scheduler.listNodes({}, { signal: looking.signal });
            const left = nodes.find(({ name }) => name === node)?.instances;
            if (left !== undefined) progress(`draining ${node}: ${left} instances left`);
            await pause(500, looking.signal);
          }
        };
        show().catch(() => {});
        try {
          const { moved, stopped, unsavedVolumes } = await warren.scheduler.drainNode(
            { node, deadline: toDuration(within) },
            { signal, timeoutMs: options.timeout ?? within + drainSlackMs },
          );
          progress("");
          if (options.json) printJson({ node, moved, stopped, unsavedVolumes });
          else
            process.stdout.write(
              `${pc.green("drained")} ${node} ${pc.dim(`${moved} moved, ${stopped} stopped`)}\n`,
            );
          for (const volume of options.json ? [] : unsavedVolumes) {
            process.stderr.write(
              `${pc.yellow("!")} volume ${volume} is not backed up as it was left: 'warren volumes' says why\n`,
            );
          }
        } finally {
          looking.abort();
        }
      }),
    );
}
