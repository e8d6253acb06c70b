/** `warren cordon | uncordon | drain | forget`: where new instances may go. */
import { pause, toDuration } from "@warren/common/time";
import type { Command } from "commander";
import pc from "../colors.ts";
import { printJson, progress } from "../output.ts";
import { asVerb, durationOption, type VerbOptions, withWarren } from "../verb.ts";

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
    .description("remove a node for good: you vouch that nothing runs on it; refused while its agent reports")
    .argument("<node>")
    .option("--force", "although its agent reports: its instances end, and it joins again as a new node")
    .action((node: string, options: VerbOptions & { force?: boolean }) =>
      withWarren(options, async (warren) => {
        await warren.scheduler.forgetNode({ node, force: options.force ?? false });
        if (options.json) printJson({ node, done: "forgot" });
        else process.stdout.write(`${pc.green("forgot")} ${node}\n`);
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
          const { moved, stopped } = await warren.scheduler.drainNode(
            { node, deadline: toDuration(within) },
            { signal, timeoutMs: options.timeout ?? within + drainSlackMs },
          );
          progress("");
          if (options.json) printJson({ node, moved, stopped });
          else
            process.stdout.write(
              `${pc.green("drained")} ${node} ${pc.dim(`${moved} moved, ${stopped} stopped`)}\n`,
            );
        } finally {
          looking.abort();
        }
      }),
    );
}
