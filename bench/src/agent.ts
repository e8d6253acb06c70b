/**
 * What an agent costs: a start and a stop over RPC against a bare `Bun.spawn` and kill of the same app in the same run,
 * and what it takes to watch many instances. The README says what can be set.
 */
import { api, hello } from "./agent/apps.ts";
import { crowd } from "./agent/crowd.ts";
import { single } from "./agent/single.ts";
import { Site } from "./agent/site.ts";
import { runBench, setting } from "./harness/bench.ts";

/** Everything, without the clean-up. */
const budgetMs = 200_000;

await runBench("agent", budgetMs, async (bench) => {
  const rounds = setting("ROUNDS", 50, 5, 1_000);
  const count = setting("COUNT", 500, 1, 2_000);
  const nodes = setting("NODES", 1, 1, 8);
  const seconds = setting("SECONDS", 20, 2, 60);
  const site = await Site.open(bench);
  await single(bench, site, [hello, api], rounds);
  await crowd(bench, site, { count, nodes, seconds });
});
