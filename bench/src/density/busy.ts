/** Small tenants beside one that takes every core: all start and answer, and how much slower. */
import type { Bench } from "../harness/bench.ts";
import { ratios, spread } from "../harness/stats.ts";
import { around, short, table } from "../harness/table.ts";
import type { AppDirectories } from "./apps.ts";
import type { WarrenHolder } from "./warren.ts";

const neighbours = 100;

interface Round {
  readonly cold: number[];
  readonly warm: number[];
  refused: number;
}

export async function besideBusy(bench: Bench, warren: WarrenHolder, apps: AppDirectories): Promise<void> {
  const names = (prefix: string) => Array.from({ length: neighbours }, (_, i) => `${prefix}${i}`);
  const [quietOnes, busyOnes] = [names("quiet"), names("beside")];
  await warren.deploy(apps.smallest, [...quietOnes, ...busyOnes]);
  await warren.deploy(apps.busy, ["busy"]);
  const evictionsBefore = await warren.evictions();

  bench.say(`${neighbours} tenants on a quiet machine`);
  const quiet = await ask(bench, warren, quietOnes);
  if ((await warren.ask("busy")) === undefined) throw new Error("the busy tenant did not start");
  bench.say(`${neighbours} tenants beside one that takes every core`);
  const beside = await ask(bench, warren, busyOnes);
  await warren.cluster.warren.scheduler.stop({ tenant: "busy" });

  const row = (name: string, of: "cold" | "warm") => [
    name,
    around(spread(quiet[of])),
    around(spread(beside[of])),
    short(spread(beside[of]).median / spread(quiet[of]).median),
    around(ratios(beside[of], quiet[of])),
  ];
  const head = ["ms", "quiet", "beside the busy one", "ratio of medians", "ratio, pairwise"];
  bench.print(
    `\n### ${neighbours} small tenants beside one at full load on all cores\n\n${table(head, [row("first request (cold)", "cold"), row("second request (warm)", "warm")])}\n\n` +
      `Refused: ${quiet.refused} quiet, ${beside.refused} beside it. Evictions: ${(await warren.evictions()) - evictionsBefore}.`,
  );
}

async function ask(bench: Bench, warren: WarrenHolder, tenants: readonly string[]): Promise<Round> {
  const round: Round = { cold: [], warm: [], refused: 0 };
  for (const times of [round.cold, round.warm]) {
    for (const tenant of tenants) {
      bench.signal.throwIfAborted();
      const began = performance.now();
      if ((await warren.ask(tenant)) === undefined) round.refused++;
      times.push(performance.now() - began);
    }
  }
  return round;
}
