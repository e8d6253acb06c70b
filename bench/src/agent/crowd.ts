/** Many instances at once: what the agents' memory and their watching cost, and how long all take to start and to stop. */
import { pause } from "@warren/common/time";
import type { Bench } from "../harness/bench.ts";
import { cpuMs, type Memory, memoryOf, pidsWithEnvironment } from "../harness/procfs.ts";
import { mib, short, table } from "../harness/table.ts";
import { hello } from "./apps.ts";
import type { BenchAgent, Site } from "./site.ts";

export interface CrowdSettings {
  /** Instances, over all agents. */
  readonly count: number;
  /** Agents that share them. */
  readonly nodes: number;
  /** How long is only watched. */
  readonly seconds: number;
}

/** Commands in flight at once, as a scheduler with a queue of starts would send them. */
const inFlight = 64;
/** After starting, until processes and collector are quiet; ms. */
const settleMs = 5_000;
/** The agent looks at each instance once a second, its default. */
const observeIntervalMs = 1_000;

export async function crowd(
  bench: Bench,
  site: Site,
  { count, nodes, seconds }: CrowdSettings,
): Promise<void> {
  const agents: BenchAgent[] = [];
  for (let i = 0; i < nodes; i++) agents.push(await site.agent(`crowd-${i}`));
  const perAgent = (read: (pid: number) => number) =>
    agents.reduce((sum, agent) => sum + read(agent.pid), 0) / nodes;
  const memory = (): Memory => ({
    rss: perAgent((pid) => memoryOf(pid).rss),
    pss: perAgent((pid) => memoryOf(pid).pss),
  });
  /** CPU of one agent per second, in ms. */
  const watch = async () => {
    const [cpu, began] = [perAgent(cpuMs), performance.now()];
    await pause(seconds * 1_000, bench.signal);
    bench.signal.throwIfAborted();
    return ((perAgent(cpuMs) - cpu) / (performance.now() - began)) * 1_000;
  };

  bench.say(`watching nothing for ${seconds} s`);
  await pause(settleMs, bench.signal);
  const idleCpu = await watch();
  const before = memory();

  bench.say(`starting ${count} instances`);
  const started: { agent: BenchAgent; id: string }[] = [];
  const startMs = await each(count, bench.signal, async (i) => {
    const agent = agents[i % nodes]!;
    const { ref } = await agent.start(`bench-${i}`, hello);
    started.push({ agent, id: ref!.id });
  });
  await pause(settleMs, bench.signal);

  bench.say(`watching ${count} instances for ${seconds} s`);
  const busyCpu = await watch();
  const during = memory();
  const processes = agents.reduce(
    (sum, { node }) => sum + pidsWithEnvironment(`WARREN_NODE=${node}\0`).length,
    0,
  );
  if (processes < count) throw new Error(`only ${processes} processes run of ${count} instances`);

  bench.say(`stopping ${count} instances`);
  const stopMs = await each(count, bench.signal, (i) => started[i]!.agent.stop(started[i]!.id));
  const after = memory();

  bench.print(`\n### ${count} instances of hello on ${nodes === 1 ? "one agent" : `${nodes} agents`}\n`);
  const full = `with ${count}`;
  const rows = [
    ["RSS of an agent, MiB", mib(before.rss), mib(during.rss), mib(after.rss)],
    ["PSS of an agent, MiB", mib(before.pss), mib(during.pss), mib(after.pss)],
    ["CPU of an agent that only watches, % of a core", short(idleCpu / 10), short(busyCpu / 10), ""],
    [
      `the same per observation round (${observeIntervalMs} ms), ms`,
      short((idleCpu * observeIntervalMs) / 1_000),
      short((busyCpu * observeIntervalMs) / 1_000),
      "",
    ],
    [
      "the same per instance and round, µs",
      "",
      short((((busyCpu - idleCpu) * observeIntervalMs) / count) * nodes),
      "",
    ],
  ];
  bench.print(table(["", "with none", full, "all stopped"], rows));
  bench.print(
    `\nAll ${count} started in ${short(startMs / 1_000)} s (${short((count / startMs) * 1_000)} a second, ${Math.min(inFlight, count)} asked for at ` +
      `once), and stopped in ${short(stopMs / 1_000)} s (${short((count / stopMs) * 1_000)} a second).`,
  );
}

/** Does it `count` times, some at once; answers how long all took, in ms. */
async function each(count: number, signal: AbortSignal, act: (i: number) => Promise<void>): Promise<number> {
  const began = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < count) {
      signal.throwIfAborted();
      await act(next++);
    }
  };
  await Promise.all(Array.from({ length: Math.min(inFlight, count) }, worker));
  return performance.now() - began;
}
