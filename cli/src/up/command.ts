/** `warren up`: a whole cell in one command, until Ctrl-C. */
import { join, resolve } from "node:path";
import { loadCredentials, Warren } from "@warren/client";
import { envName, listOf } from "@warren/common/config";
import { ports } from "@warren/common/ports";
import { waitUntil } from "@warren/common/time";
import { TrustedProxies } from "@warren/gateway/trusted";
import { Isolation } from "@warren/proto/common";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Cluster, defaultStateDirectory } from "../cluster.ts";
import pc from "../colors.ts";
import { exitCodes, fail } from "../exit.ts";
import { type RungName, rungNames } from "../names.ts";
import { printJson } from "../output.ts";
import { type PublicUrl, parsePublicUrl } from "../public-url.ts";
import { durationOption, sizeOption } from "../verb.ts";
import { version } from "../version.ts";
import { Cell } from "./cell.ts";
import type { ChildEvent } from "./child.ts";
import { exposureText } from "./exposure.ts";

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

/** A reader of an option's value; what it throws is the message. */
function argument<T>(read: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return read(text);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };
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
  readonly domain?: string;
  readonly host: string;
  readonly publicUrl?: PublicUrl;
  readonly trustForwarded: readonly string[];
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
    .addOption(
      new Option(
        "--host <address>",
        "address of tenants' HTTP; 0.0.0.0 lets other machines in (everything else stays on loopback)",
      )
        .env(envName("gateway", "host"))
        .default("127.0.0.1"),
    )
    .addOption(
      new Option(
        "--domain <name>",
        "tenants are reached as <tenant>.<name> (default: the host of --public-url, else localhost)",
      ).env(envName("gateway", "domain")),
    )
    .addOption(
      new Option(
        "--public-url <url>",
        "how the world reaches tenants where a TLS proxy stands in front: https://apps.example.com, or https://example.com/{tenant}",
      )
        .env(envName("gateway", "publicUrl"))
        .argParser(argument(parsePublicUrl)),
    )
    .addOption(
      new Option(
        "--trust-forwarded <ranges>",
        "addresses of proxies whose X-Forwarded-* and Forwarded are believed: 127.0.0.1,10.0.0.0/8",
      )
        .env(envName("gateway", "trustForwarded"))
        .argParser(argument((text) => new TrustedProxies(listOf(text)).ranges))
        .default([], "none"),
    )
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
    memory: options.memory,
    cpus: options.cpus,
    host: options.host,
    domain: options.domain ?? options.publicUrl?.domain ?? "localhost",
    publicUrl: options.publicUrl?.pattern,
    trustForwarded: options.trustForwarded,
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
tenants  ${(options.publicUrl?.pattern ?? cluster.gateway.replace("://", "://{tenant}.")).replace("{tenant}", "<tenant>")}
try      warren deploy examples/hello${options.state ? ` --state ${options.state}` : ""}
metrics  ${cluster.gatewayAdmin}/metrics, and of the others above; token: ${join(state, "credentials", "metrics", "token")}
stop     Ctrl-C`);
    const { host, trustForwarded } = options;
    const port = Number(new URL(cluster.gateway).port || 80);
    const publicUrl = options.publicUrl?.pattern;
    for (const line of exposureText({ host, port, publicUrl, trustForwarded }))
      say(`${pc.yellow("!")} ${line}`);
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
