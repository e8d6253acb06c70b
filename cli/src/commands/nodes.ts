/** `warren nodes [NODE]`: the hosts there are, or all that is known of one. */
import { fromTimestamp } from "@warren/common/time";
import { type Node, NodeSchema } from "@warren/proto/common";
import type { Command } from "commander";
import pc from "../colors.ts";
import { type Column, fittingTable, tableWidth, wideText } from "../columns.ts";
import { exitCodes, UserError } from "../exit.ts";
import { nodeStateName, rungsName } from "../names.ts";
import { age, bytes, messageJson, printJson } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

export function nodeCommand(program: Command): void {
  asVerb(program.command("nodes"))
    .description("list nodes; with a name, all that is known of one, and what its host lacks")
    .argument("[node]", "only this one")
    .option("--wide", wideText)
    .action((name: string | undefined, options: VerbOptions & { wide?: boolean }) =>
      withWarren(options, async (warren) => {
        const { nodes } = await warren.scheduler.listNodes({});
        const shown = name === undefined ? nodes : nodes.filter((node) => node.name === name);
        const only = name === undefined ? undefined : shown[0];
        if (name !== undefined && !only) {
          throw new UserError(
            `no node ${name} in the roster ('warren nodes' lists them)`,
            exitCodes.notFound,
          );
        }
        if (options.json) for (const node of shown) printJson(messageJson(NodeSchema, node));
        else if (only) process.stdout.write(nodeText(only, Date.now()));
        else process.stdout.write(fittingTable(nodeColumns, shown, { width: tableWidth(options) }));
      }),
    );
}

/** What `warren nodes` shows of each. */
export const nodeColumns: readonly Column<Node>[] = [
  { title: "NODE", rank: 0, text: ({ name }) => name },
  { title: "STATE", rank: 0, text: stateText },
  { title: "INSTANCES", rank: 2, text: instancesText },
  { title: "MEMORY", rank: 1, text: memoryText },
  { title: "CPU", rank: 4, text: cpuText },
  {
    title: "HEADROOM",
    rank: 5,
    text: ({ pressure }) => `${size(pressure?.headroomMemoryBytes)}, ${cores(pressure?.headroomCpuMillis)}`,
  },
  { title: "ISOLATION", rank: 7, text: ({ isolation }) => rungsName(isolation) },
  { title: "HOST", rank: 8, text: ({ host }) => host?.kind || "-" },
  { title: "AGENT", rank: 6, text: ({ agentUrl }) => agentUrl },
  { title: "REPORTED", rank: 3, text: (node) => reportedText(node, Date.now()) },
];

const size = (n: bigint | undefined): string => bytes(Number(n ?? 0n));
const cores = (millis: number | undefined): string => ((millis ?? 0) / 1000).toFixed(2);

export function stateText(node: Node): string {
  return nodeStateName(node.state) + (node.draining ? ", draining" : node.cordoned ? ", cordoned" : "");
}

export function memoryText({ pressure, capacity }: Node): string {
  return `${size(pressure?.tenantMemoryBytes)} of ${size(capacity?.memoryBytes)}`;
}

export function cpuText({ pressure, capacity }: Node): string {
  return `${cores(pressure?.tenantCpuMillis)} of ${(capacity?.cpuMillis ?? 0) / 1000}`;
}

function instancesText({ instances, pressure }: Node): string {
  const frozen = pressure?.frozenInstances ?? 0;
  return `${instances}${frozen > 0 ? ` (${frozen} frozen)` : ""}`;
}

function reportedText({ lastReportAt }: Node, now: number): string {
  return lastReportAt ? `${age(Math.max(0, now - fromTimestamp(lastReportAt, now)))} ago` : "never";
}

/** @param now ms since 1970 */
export function nodeText(node: Node, now: number): string {
  const { pressure: p, host } = node;
  const labels = Object.entries(node.labels).map(([name, value]) => `${name}=${value}`);
  const lines: readonly (readonly [string, string])[] = [
    ["node", node.name],
    ["state", `${stateText(node)}, reported ${reportedText(node, now)}`],
    ["agent", `${node.agentUrl || "-"}${node.version ? `, version ${node.version}` : ""}`],
    ["isolation", rungsName(node.isolation)],
    ["host", host ? `${host.kind}${host.canPageOut ? ", can page out" : ""}` : "-"],
    ...(host?.missing ?? []).map((sentence) => ["lacks", sentence] as const),
    ["labels", labels.sort().join(", ") || "-"],
    [
      "instances",
      `${node.instances}, alive ${p?.liveInstances ?? 0}, frozen ${p?.frozenInstances ?? 0}, starts waiting ${p?.waitingStarts ?? 0}`,
    ],
    [
      "memory",
      `${memoryText(node)}, headroom ${size(p?.headroomMemoryBytes)}, host has ${size(p?.hostMemoryAvailableBytes)} left`,
    ],
    [
      "predicted",
      `peaks of its instances: ${size(node.predictedMemoryBytes)}, ${cores(node.predictedCpuMillis)} cores`,
    ],
    ["cpu", `${cpuText(node)} cores, headroom ${cores(p?.headroomCpuMillis)}`],
    ["disk", `${size(p?.diskAvailableBytes)} left for tenants' files`],
    [
      "pressure",
      `10 s: cpu ${percent(p?.cpuSomeAvg10)}, memory ${percent(p?.memorySomeAvg10)} (all ${percent(p?.memoryFullAvg10)}), io ${percent(p?.ioSomeAvg10)}`,
    ],
  ];
  return lines.map(([name, value]) => `${pc.bold(name.padEnd(10))} ${value}\n`).join("");
}

const percent = (share: number | undefined): string => `${(share ?? 0).toFixed(1)} %`;
