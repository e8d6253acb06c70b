/** `warren up`: a whole cell in one command, until Ctrl-C. */
import { resolve } from "node:path";
import { loadCredentials, Warren } from "@warren/client";
import { ports } from "@warren/common/ports";
import { waitUntil } from "@warren/common/time";
import { Isolation } from "@warren/proto/common";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Cluster, defaultStateDirectory } from "../cluster.ts";
import pc from "../colors.ts";
import { exitCodes, fail } from "../exit.ts";
import { type RungName, rungNames } from "../names.ts";
import { printJson } from "../output.ts";
import { durationOption, sizeOption } from "../verb.ts";
import { version } from "../version.ts";
import { Cell } from "./cell.ts";
import type { ChildEvent } from "./child.ts";

/** An agent joins within half a second, unless something is wrong that its log tells. */
const joinMs = 5_000;

function port(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 0 || n > 65535)
    throw new InvalidArgumentError("It must be from 0 to 65535.");
  return n;
}

function atLeastOne(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new InvalidArgumentError("It must be a whole number from 1.");
  return n;
}

const duration = (text: string): string => {
  durationOption(text);
  return text;
};

const size = (text: string): string => {
  sizeOption(text);
  return text;
};

function cores(text: string): number {
  const n = Number(text);
  if (!(n > 0) || !Number.isFinite(n)) throw new InvalidArgumentError("It must be a number above 0.");
  return n;
}

interface UpOptions {
  readonly state?: string;
  readonly json?: boolean;
  readonly nodes: number;
  readonly port: number;
  readonly schedulerPort: number;
  readonly meteringPort: number;
  readonly gatewayAdminPort: number;
  readonly nats?: string;
  readonly plans?: string;
  readonly maxConcurrent: number;
  readonly idleAfter: string;
  readonly freezeAfter: string;
  readonly minResidence: string;
  readonly isolation: RungName;
  readonly domain: string;
  readonly memory?: string;
  readonly cpus?: number;
}

export function upCommand(program: Command): void {
  program
    .command("up")
    .description("run a whole cell on this machine until Ctrl-C: scheduler, agents, gateway, metering")
    .option("--state <dir>", "state directory (default: WARREN_STATE, else ~/.local/state/warren)")
    .option("--nodes <n>", "how many agents", atLeastOne, 1)
    .option("--port <n>", "port of tenants' HTTP; 0 takes a free one and keeps it", port, ports.gateway)
    .option(
      "--scheduler-port <n>",
      "port of the scheduler's API; 0 takes a free one and keeps it",
      port,
      ports.scheduler,
    )
    .option(
      "--metering-port <n>",
      "port of the metering API; 0 takes a free one and keeps it",
      port,
      ports.metering,
    )
    .option(
      "--gateway-admin-port <n>",
      "port of the gateway's health and metrics; 0 takes a free one",
      port,
      ports.gatewayAdmin,
    )
    .option(
      "--nats <url>",
      "keep state and events on NATS instead of the embedded store",
      process.env.NATS_URL,
    )
    .option("--plans <file>", "what tenants pay, for 'warren invoice' and budget alerts (docs/billing.md)")
    .option("--max-concurrent <n>", "most live instances", atLeastOne, 1000)
    .option("--idle-after <duration>", "stop an instance after so long without a request", duration, "30m")
    .option(
      "--freeze-after <duration>",
      "freeze an instance after so long without a request",
      duration,
      "30s",
    )
    .option("--min-residence <duration>", "never evict an instance that was used so recently", duration, "1s")
    .addOption(
      new Option(
        "--isolation <rung>",
        "highest rung of isolation that the agents offer; auto: the highest that works here",
      )
        .choices(rungNames)
        .default("auto"),
    )
    .option("--memory <size>", "memory for tenants, of each node: 4GiB (default: the host's)", size)
    .option("--cpus <n>", "cores for tenants, of each node: 2 or 0.5 (default: the host's)", cores)
    .option("--domain <name>", "tenants are reached as <tenant>.<name>", "localhost")
    .option("--json", "print JSON, one value per line")
    .action(up);
}

async function up(options: UpOptions): Promise<void> {
  const state = resolve(options.state ?? defaultStateDirectory());
  const say = (text: string) => {
    if (!options.json) process.stdout.write(`${text}\n`);
  };
  const cell = new Cell({
    state,
    nodes: options.nodes,
    gatewayPort: options.port,
    schedulerPort: options.schedulerPort,
    meteringPort: options.meteringPort,
    gatewayAdminPort: options.gatewayAdminPort,
    natsUrl: options.nats,
    plansFile: options.plans === undefined ? undefined : resolve(options.plans),
    maxConcurrent: options.maxConcurrent,
    idleAfter: options.idleAfter,
    freezeAfter: options.freezeAfter,
    minResidence: options.minResidence,
    isolation: options.isolation,
    domain: options.domain,
    memory: options.memory,
    cpus: options.cpus,
    onEvent: (event) => (options.json ? printJson(event) : say(eventText(event))),
    onReady: (child) =>
      say(
        `${pc.green("✓")} ${child.name.padEnd(10)} ${child.facts.url ?? ""} ${pc.dim(child.adopted ? `adopted, pid ${child.pid}` : `pid ${child.pid}`)}`,
      ),
  });

  let signals = 0;
  let wake: () => void = () => {};
  const asked = new Promise<void>((done) => {
    wake = done;
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (++signals > 1) process.exit(exitCodes.interrupted);
      wake();
    });
  }

  say(`${pc.bold(`warren ${version}`)} ${pc.dim(state)}`);
  try {
    await Promise.race([cell.start(), asked]);
  } catch (error) {
    await cell.stop();
    fail(error);
  }
  if (signals === 0) {
    const { cluster } = cell;
    if (options.json) printJson(cluster);
    say(`
tenants  ${cluster.gateway.replace("://", "://<tenant>.")}
try      warren deploy examples/hello${options.state ? ` --state ${options.state}` : ""}
stop     Ctrl-C`);
    if (!options.json && options.isolation !== "none") {
      const lacks = await Promise.race([whatIsolationLacks(cluster), asked]);
      if (lacks) say(`${pc.yellow("!")} tenants are not isolated from each other: ${lacks}`);
    }
    await asked;
  }
  say(pc.dim("stopping; once more Ctrl-C leaves at once"));
  await cell.stop();
  process.exit(exitCodes.ok);
}

/** Why this host isolates nothing, as its first agent says once it has joined; nothing where it does, or none says so. */
async function whatIsolationLacks({ scheduler, credentials }: Cluster): Promise<string | undefined> {
  const warren = new Warren({
    url: scheduler,
    credentials: loadCredentials(credentials),
    deadlineMs: joinMs,
  });
  try {
    const node = await waitUntil(
      async () => (await warren.scheduler.listNodes({})).nodes.find(({ isolation }) => isolation.length > 0),
      { deadlineMs: joinMs, what: "an agent to join" },
    );
    return Math.max(...node.isolation) > Isolation.NONE ? undefined : node.host?.missing.join("; ");
  } catch {
    return undefined; // `warren nodes` will tell
  } finally {
    warren.close();
  }
}

function eventText(event: ChildEvent): string {
  switch (event.kind) {
    case "ended":
      return `${pc.yellow("!")} ${event.name} has ended; starting it again`;
    case "back":
      return `${pc.green("✓")} ${event.name} serves again`;
    case "failing":
      return `${pc.red("✗")} ${event.name}: ${event.message}`;
  }
}
