/** `warren stats | top`: what the cell does now, once or live. */
import { fromDuration, fromTimestamp, pause } from "@warren/common/time";
import {
  type Instance,
  InstanceMode,
  InstanceSchema,
  InstanceState,
  type Node,
  NodeSchema,
} from "@warren/proto/common";
import { type GetStatsResponse, GetStatsResponseSchema } from "@warren/proto/scheduler";
import type { Command } from "commander";
import pc from "../colors.ts";
import { type Column, fittingTable, tableWidth, wideText } from "../columns.ts";
import { UserError } from "../exit.ts";
import { memoryHelp } from "../memory-help.ts";
import { modeName, stateName } from "../names.ts";
import { age, bytes, messageJson, printJson } from "../output.ts";
import { asVerb, countOption, durationOption, type VerbOptions, withWarren } from "../verb.ts";
import { cpuText, memoryText, stateText } from "./nodes.ts";

export function topCommands(program: Command): void {
  asVerb(program.command("stats"))
    .description("counts of the cell: instances by what they do, calls that wait, decisions so far")
    .action((options: VerbOptions) =>
      withWarren(options, async (warren) => {
        const stats = await warren.scheduler.getStats({});
        if (options.json) printJson(messageJson(GetStatsResponseSchema, stats));
        else process.stdout.write(statsText(stats));
      }),
    );

  asVerb(program.command("top"))
    .description("a live table of nodes and instances: states, start times, load; q or Ctrl-C ends it")
    .option("--interval <duration>", "between two looks (default: 1s)", durationOption)
    .option(
      "--count <n>",
      "so many looks, then end (default: until ended, 1 where nobody watches)",
      countOption,
    )
    .option("--wide", wideText)
    .addHelpText("after", `\n${memoryHelp}`)
    .action((options: VerbOptions & { interval?: number; count?: number; wide?: boolean }) => {
      const { interval = 1_000 } = options;
      if (interval < 50) throw new UserError("--interval must be at least 50ms");
      return withWarren(options, async (warren, signal) => {
        const live = process.stdout.isTTY && !options.json;
        const most = options.count ?? (live ? Number.POSITIVE_INFINITY : 1);
        const before = new Map<string, number>();
        const screen = live ? openScreen() : undefined;
        try {
          for (let look = 0; look < most && !signal.aborted && !screen?.ended; look++) {
            if (look > 0) await screenPause(interval, signal, screen);
            if (signal.aborted || screen?.ended) return;
            const [stats, { nodes }, { instances }] = await Promise.all([
              warren.scheduler.getStats({}, { signal }),
              warren.scheduler.listNodes({}, { signal }),
              warren.scheduler.listInstances({}, { signal }),
            ]);
            if (options.json) {
              printJson({
                stats: messageJson(GetStatsResponseSchema, stats),
                nodes: nodes.map((node) => messageJson(NodeSchema, node)),
                instances: instances.map((instance) => messageJson(InstanceSchema, instance)),
              });
              continue;
            }
            const rows = live ? Math.max(10, (process.stdout.rows ?? 40) - 1) : Number.POSITIVE_INFINITY;
            const width = tableWidth(options); // at each look: it may have been resized
            const text = topText(stats, nodes, instances, { before, now: Date.now(), rows, width, interval });
            process.stdout.write(live ? `\x1b[H${text.replaceAll("\n", "\x1b[K\n")}\x1b[J` : text);
          }
        } finally {
          screen?.close();
        }
      });
    });
}

interface Screen {
  ended: boolean;
  readonly end: AbortSignal;
  close(): void;
}

/** The terminal's other page, without a cursor; given back as it was. */
function openScreen(): Screen {
  const ended = new AbortController();
  process.stdout.write("\x1b[?1049h\x1b[?25l");
  const onKey = (key: Buffer) => {
    if (key[0] === 0x71 || key[0] === 3) {
      screen.ended = true;
      ended.abort();
    }
  };
  if (process.stdin.isTTY) {
    process.stdin.setRawMode(true);
    process.stdin.resume();
    process.stdin.on("data", onKey);
  }
  const screen: Screen = {
    ended: false,
    end: ended.signal,
    close() {
      if (process.stdin.isTTY) {
        process.stdin.off("data", onKey);
        process.stdin.setRawMode(false);
        process.stdin.pause();
      }
      process.stdout.write("\x1b[?25h\x1b[?1049l");
    },
  };
  return screen;
}

async function screenPause(ms: number, signal: AbortSignal, screen: Screen | undefined): Promise<void> {
  await pause(ms, screen ? AbortSignal.any([signal, screen.end]) : signal);
}

/** @param stats as the scheduler counts */
export function statsText(stats: GetStatsResponse): string {
  const lines: (readonly [string, string])[] = [
    [
      "cell",
      `${stats.cell}, scheduler ${stats.version}, epoch ${stats.epoch}, store ${stats.store}, leads for ${age(fromDuration(stats.uptime, 0))}`,
    ],
    [
      "instances",
      `${stats.live} of ${stats.maxConcurrent} places: ${stats.active} active, ${stats.frozen} frozen, ${stats.starting} starting`,
    ],
    ["waiting", `${stats.waiting} calls, ${stats.queued} tenants`],
    ["tenants", `${stats.tenants}`],
    ["nodes", `${stats.nodesUp} up, ${stats.gateways} gateways`],
    ...Object.entries(stats.counts)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, n]) => [countName(name), `${n}`] as const),
  ];
  return lines.map(([name, value]) => `${pc.bold(name.padEnd(20))} ${value}\n`).join("");
}

/**
 * @param before CPU time of each instance at the last look, in µs; brought up to date
 * @param rows most lines of it
 * @param width columns of the terminal; nothing shows all that there is
 */
export function topText(
  stats: GetStatsResponse,
  nodes: readonly Node[],
  instances: readonly Instance[],
  {
    before,
    now,
    rows,
    width,
    interval,
  }: {
    before: Map<string, number>;
    now: number;
    rows: number;
    width: number | undefined;
    interval: number;
  },
): string {
  const head = headLines(stats, width);
  const nodeTable = fittingTable(nodeColumns, nodes, { width, footnote: false });
  const measured = instances.map((instance) => {
    const id = instance.ref?.id ?? "";
    const us = Number(instance.usage?.cpuUs ?? 0n);
    const share = before.has(id) ? Math.max(0, us - (before.get(id) ?? us)) / (interval * 10) : 0;
    before.set(id, us);
    return { instance, share };
  });
  const alive = new Set(instances.map(({ ref }) => ref?.id));
  for (const id of before.keys()) if (!alive.has(id)) before.delete(id);
  // Who works comes first, then who was used last.
  measured.sort(
    (a, b) =>
      b.instance.inFlight - a.instance.inFlight ||
      b.share - a.share ||
      fromTimestamp(b.instance.lastUsedAt, 0) - fromTimestamp(a.instance.lastUsedAt, 0),
  );
  const room = Math.max(1, rows - head.length - nodes.length - 5);
  const shown = measured.slice(0, room);
  const instanceTable = fittingTable(instanceColumns(now), shown, { width, footnote: false });
  const more = measured.length - shown.length;
  return `${head.join("\n")}\n\n${nodeTable}\n${instanceTable}${more > 0 ? pc.dim(`… and ${more} more\n`) : ""}`;
}

/** The cell in one line, or in as many as it takes. */
function headLines(stats: GetStatsResponse, width = Number.POSITIVE_INFINITY): string[] {
  const parts = [
    `warren ${stats.cell}  ${stats.live}/${stats.maxConcurrent} live:`,
    `${stats.active} active,`,
    `${stats.frozen} frozen,`,
    `${stats.starting} starting;`,
    `${stats.waiting} calls wait;`,
    `${stats.tenants} tenants`,
  ];
  const lines = [""];
  for (const part of parts) {
    const last = lines.at(-1)!;
    if (last !== "" && last.length + 1 + part.length > width) lines.push(part);
    else lines[lines.length - 1] = last === "" ? part : `${last} ${part}`;
  }
  return [lines[0]!.replace("warren", pc.bold("warren")), ...lines.slice(1)];
}

const nodeColumns: readonly Column<Node>[] = [
  { title: "NODE", rank: 0, text: ({ name }) => name },
  { title: "STATE", rank: 0, text: stateText },
  { title: "INSTANCES", rank: 3, text: ({ instances }) => `${instances}` },
  { title: "MEMORY", rank: 1, text: memoryText },
  { title: "PREDICTED", rank: 5, text: ({ predictedMemoryBytes }) => bytes(Number(predictedMemoryBytes)) },
  { title: "CPU", rank: 2, text: cpuText },
  {
    title: "PRESSURE",
    rank: 4,
    text: ({ pressure }) =>
      `cpu ${(pressure?.cpuSomeAvg10 ?? 0).toFixed(0)} % mem ${(pressure?.memorySomeAvg10 ?? 0).toFixed(0)} %`,
  },
];

interface Measured {
  readonly instance: Instance;
  /** Of a core since the last look, in percent. */
  readonly share: number;
}

const instanceColumns = (now: number): readonly Column<Measured>[] => [
  { title: "TENANT", rank: 0, text: ({ instance }) => instance.ref?.tenant ?? "" },
  { title: "SLOT", rank: 6, text: ({ instance }) => `${instance.ref?.slot ?? 0}` },
  { title: "NODE", rank: 4, text: ({ instance }) => instance.ref?.node ?? "" },
  { title: "STATE", rank: 0, text: ({ instance }) => modeOrState(instance) },
  { title: "OPEN", rank: 3, text: ({ instance }) => `${instance.inFlight}` },
  { title: "CPU", rank: 1, text: ({ share }) => `${share.toFixed(0)} %` },
  {
    title: "MEMORY",
    rank: 2,
    text: ({ instance: { usage } }) => (usage ? bytes(Number(usage.memoryBytes)) : "-"),
  },
  {
    title: "START",
    rank: 8,
    text: ({ instance: { startDuration } }) => (startDuration ? age(fromDuration(startDuration, 0)) : "-"),
  },
  {
    title: "UP",
    rank: 7,
    text: ({ instance: { startedAt } }) =>
      startedAt ? age(Math.max(0, now - fromTimestamp(startedAt, now))) : "-",
  },
  {
    title: "IDLE",
    rank: 5,
    text: ({ instance }) => age(Math.max(0, now - fromTimestamp(instance.lastUsedAt, now))),
  },
];

function modeOrState({ state, mode }: Instance): string {
  return state === InstanceState.READY && mode > InstanceMode.ACTIVE ? modeName(mode) : stateName(state);
}

/** "exits oom killed"; what was stopped on request is not called killed. */
const countName = (name: string): string =>
  name === "exits_killed" ? "exits stopped" : name.replaceAll("_", " ");
