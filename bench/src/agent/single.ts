/** One instance at a time, through the agent and by a bare `Bun.spawn`, side by side. */
import { fromDuration } from "@warren/common/time";
import type { Instance } from "@warren/proto/common";
import type { Bench } from "../harness/bench.ts";
import { interleave } from "../harness/rounds.ts";
import { ratios, spread } from "../harness/stats.ts";
import { around, table } from "../harness/table.ts";
import { type App, assertInstalled, startBare } from "./apps.ts";
import type { Site } from "./site.ts";

/** Of all rounds of one app. */
const budgetMs = 50_000;
const warmups = 3;

export async function single(bench: Bench, site: Site, apps: readonly App[], rounds: number): Promise<void> {
  const agent = await site.agent("single");
  const bare = async (app: App) => {
    const child = await startBare(app, site.directory, bench.signal);
    return { start: child.startMs, stop: await child.stop() };
  };
  const compared: string[][] = [];
  const parts: string[][] = [];
  for (const app of apps) {
    assertInstalled(app);
    bench.say(`${rounds} rounds of ${app.name}`);
    const measured = await interleave(
      {
        agent: async () => {
          const began = performance.now();
          const instance = await agent.start(`bench-${app.name}`, app);
          const ready = performance.now();
          await agent.stop(instance.ref!.id);
          return {
            start: ready - began,
            stop: performance.now() - ready,
            ...partsOf(instance, ready - began),
          };
        },
        bare: () => bare(app),
        // Once more the same: how far it is from the other shows what the machine's noise alone does.
        again: () => bare(app),
      },
      { rounds, warmups, budgetMs, signal: bench.signal },
    );
    for (const [figure, what] of [
      ["start", "start until it answers 200"],
      ["stop", "stop until it is gone"],
    ] as const) {
      const [ours, plain, again] = [measured.agent, measured.bare, measured.again].map((arm) => arm[figure]!);
      compared.push([
        `${app.name}: ${what}`,
        ...[spread(ours!), spread(plain!), ratios(ours!, plain!), ratios(again!, plain!)].map(around),
        `${ours!.length}`,
      ]);
    }
    parts.push([app.name, ...partNames.map((part) => around(spread(measured.agent[part]!)))]);
  }
  bench.print("### One instance at a time\n");
  bench.print(
    table(["ms", "agent", "bare spawn", "agent / bare", "bare / bare (noise)", "rounds"], compared),
  );
  bench.print(
    "\nWhere an agent's start goes, as it says itself; the rest is its command, its record and its answer:\n",
  );
  bench.print(table(["ms", ...partNames], parts));
}

const partNames = ["fetch", "queue", "spawn", "listen", "answer", "rest"] as const;

/** @param totalMs from the command until its answer */
function partsOf(
  { startPhases: phases }: Instance,
  totalMs: number,
): Record<(typeof partNames)[number], number> {
  const [fetch, queue, spawn, listen, answer] = [
    phases?.fetch,
    phases?.queue,
    phases?.spawn,
    phases?.listen,
    phases?.answer,
  ].map((part) => fromDuration(part, 0)) as [number, number, number, number, number];
  return { fetch, queue, spawn, listen, answer, rest: totalMs - fetch - queue - spawn - listen - answer };
}
