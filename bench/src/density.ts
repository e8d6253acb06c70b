/**
 * How many tenants fit on a machine and are still there when they are asked again: Warren beside the pools of its peers,
 * and many small tenants beside one that takes every core. The README says what can be set.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeApps } from "./density/apps.ts";
import { besideBusy } from "./density/busy.ts";
import { type CrowdFigures, crowd, type Holder } from "./density/crowd.ts";
import { processPool, threadPool } from "./density/pool.ts";
import { WarrenHolder } from "./density/warren.ts";
import { runBench, setting } from "./harness/bench.ts";
import { spread } from "./harness/stats.ts";
import { around, mib, short, table } from "./harness/table.ts";

const budgetMs = 1_200_000;

await runBench("density", budgetMs, async (bench) => {
  const count = setting("TENANTS", 1_000, 10, 5_000);
  const gib = setting("MEMORY_GIB", 4, 1, 1_024);
  const seed = setting("SEED", 1, 1, 1_000_000);
  const directory = mkdtempSync(join(tmpdir(), "warren-density-"));
  bench.later("removing the directory", () => rmSync(directory, { recursive: true, force: true }));
  const apps = writeApps(directory);
  const tenants = Array.from({ length: count }, (_, i) => `t${i}`);

  const rows: string[][] = [];
  const measure = async (holder: Holder) => {
    bench.say(`${holder.name}: ${count} tenants, twice`);
    const figures = await crowd(holder, tenants, seed, bench.signal);
    rows.push(rowOf(holder.name, figures));
    bench.say(rows.at(-1)!.join(" · "));
  };
  for (const pool of [processPool(apps.smallest), threadPool(apps.thread)]) {
    bench.later(`ending ${pool.name}`, () => pool.end());
    await measure(pool);
    await pool.end(); // it must not share the machine with the next one
  }
  const warren = await WarrenHolder.start(bench, `${gib}GiB`, count + 300);
  bench.say(`deploying ${count} tenants`);
  await warren.deploy(apps.smallest, tenants);
  await measure(warren);
  const head = [
    "",
    "live after two rounds",
    "per GiB of memory",
    "MiB each",
    "evictions",
    "refused",
    "cold in round 2",
    "round 1, ms",
    "round 2, ms",
  ];
  bench.print(
    `### ${count} idle tenants, each asked twice in random order (SEED=${seed}); Warren's node has ${gib} GiB\n\n${table(head, rows)}\n`,
  );
  await besideBusy(bench, warren, apps);
});

function rowOf(name: string, figures: CrowdFigures): string[] {
  const { live, bytesPerLive, evictions, refused, cold, first, second } = figures;
  return [
    name,
    `${live}`,
    short(2 ** 30 / Math.max(1, bytesPerLive)),
    mib(bytesPerLive),
    `${evictions}`,
    `${refused}`,
    `${cold}`,
    around(spread(first)),
    around(spread(second)),
  ];
}
