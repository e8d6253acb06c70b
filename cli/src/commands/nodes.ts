/** `warren nodes [NODE]`: the hosts there are, or all that is known of one. */
import { fromTimestamp } from "@warren/common/time";
import { type Node, NodeSchema } from "@warren/proto/common";
import type { Command } from "commander";
import pc from "../colors.ts";
import { exitCodes, UserError } from "../exit.ts";
import { nodeStateName, rungsName } from "../names.ts";
import { age, bytes, messageJson, printJson, printTable } from "../output.ts";
import { asVerb, type VerbOptions, withWarren } from "../verb.ts";

export function nodeCommand(program: Command): void {
  asVerb(program.command("nodes"))
    .description("list nodes; with a name, all that is known of one, and what its host lacks")
    .argument("[node]", "only this one")
    .action((name: string | undefined, options: VerbOptions) =>
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
        else printTable(head, shown.map(row));
      }),
    );
}

const head = [
  "NODE",
  "STATE",
  "INSTANCES",
  "MEMORY",
  "CPU",
  "HEADROOM",
  "ISOLATION",
  "HOST",
  "AGENT",
  "REPORTED",
];

function row(node: Node): string[] {
  const frozen = node.pressure?.frozenInstances ?? 0;
  return [
    node.name,
    stateText(node),
    `${node.instances}${frozen > 0 ? ` (${frozen} frozen)` : ""}`,
    memoryText(node),
    cpuText(node),
    `${size(node.pressure?.headroomMemoryBytes)}, ${cores(node.pressure?.headroomCpuMillis)}`,
    rungsName(node.isolation),
    node.host?.kind || "-",
    node.agentUrl,
    reportedText(node, Date.now()),
  ];
}

const size = (n: bigint | undefined): string => bytes(Number(n ?? 0n));
const cores = (millis: number | undefined): string => ((millis ?? 0) / 1000).toFixed(2);
const stateText = (node: Node): string =>
  nodeStateName(node.state) + (node.draining ? ", draining" : node.cordoned ? ", cordoned" : "");
const memoryText = ({ pressure, capacity }: Node): string =>
  `${size(pressure?.tenantMemoryBytes)} of ${size(capacity?.memoryBytes)}`;
const cpuText = ({ pressure, capacity }: Node): string =>
  `${cores(pressure?.tenantCpuMillis)} of ${(capacity?.cpuMillis ?? 0) / 1000}`;

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
