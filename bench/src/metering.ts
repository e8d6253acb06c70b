/**
 * The ledger: events per second from their publishing until they are committed, on both ledgers and both journals, and what
 * a million of them cost in CPU and on disk. The README says what can be set.
 */
import { runBench, setting } from "./harness/bench.ts";
import { interleave } from "./harness/rounds.ts";
import { ratios, spread } from "./harness/stats.ts";
import { around, mib, short, table } from "./harness/table.ts";
import { armOf, hasPostgres, type Route } from "./metering/arm.ts";

const budgetMs = 900_000;

await runBench("metering", budgetMs, async (bench) => {
  const events = setting("EVENTS", 50_000, 5_000, 2_000_000);
  const rounds = setting("ROUNDS", 3, 1, 20);
  const load = { events, tenants: 1_000, nodes: 20, reports: 20 };
  const routes: Record<string, Route> = {
    "embedded → SQLite": { journal: "embedded", ledger: "sqlite" },
    "NATS → SQLite": { journal: "nats", ledger: "sqlite" },
    ...(hasPostgres ? { "NATS → PostgreSQL": { journal: "nats", ledger: "postgres" } as const } : {}),
    "NATS → SQLite, catching up": { journal: "nats", ledger: "sqlite", late: true },
    ...(hasPostgres
      ? { "NATS → PostgreSQL, catching up": { journal: "nats", ledger: "postgres", late: true } as const }
      : {}),
  };
  bench.say(`${rounds} rounds of ${events} events on ${Object.keys(routes).length} ways`);
  const arms = Object.fromEntries(
    Object.entries(routes).map(([name, route]) => [name, armOf(route, load, bench.signal)]),
  );
  const results = await interleave(arms, {
    rounds,
    warmups: 0,
    budgetMs: budgetMs / 2,
    signal: bench.signal,
  });
  const base = results["NATS → SQLite"]!.perSecond!;
  bench.print(
    `\n### Events, from publishing to the committed ledger (${events} a round, median of ${base.length})\n`,
  );
  bench.print(
    table(
      ["way", "events/s", "of NATS → SQLite", "publishing alone"],
      Object.entries(results).map(([name, figures]) => [
        name,
        around(spread(figures.perSecond!)),
        around(ratios(figures.perSecond!, base)),
        around(spread(figures.publishedPerSecond!)),
      ]),
    ),
  );
  bench.print("\n### What a million events cost\n");
  bench.print(
    table(
      ["way", "CPU s, ledger", "CPU s, NATS", "CPU s, PostgreSQL", "MiB of journal", "MiB of ledger"],
      Object.entries(results).map(([name, figures]) => {
        const median = (figure: string) => spread(figures[figure]!).median;
        const seconds = (figure: string) => (median(figure) > 0 ? short(median(figure) / 1000) : "-");
        return [
          name,
          seconds("ledgerCpuMs"),
          seconds("natsCpuMs"),
          seconds("postgresCpuMs"),
          mib(median("journalBytes")),
          mib(median("ledgerBytes")),
        ];
      }),
    ),
  );
});
