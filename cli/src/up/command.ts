/** `warren up`: a whole cell in one command, until Ctrl-C. */
import { resolve } from "node:path";
import { ports } from "@warren/common/ports";
import { type Command, InvalidArgumentError } from "commander";
import pc from "picocolors";
import { defaultStateDirectory } from "../cluster.ts";
import { exitCodes, fail } from "../exit.ts";
import { printJson } from "../output.ts";
import { durationOption } from "../verb.ts";
import { version } from "../version.ts";
import { Cell } from "./cell.ts";
import type { ChildEvent } from "./child.ts";

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

interface UpOptions {
  readonly state?: string;
  readonly json?: boolean;
  readonly nodes: number;
  readonly port: number;
  readonly schedulerPort: number;
  readonly meteringPort: number;
  readonly nats?: string;
  readonly maxConcurrent: number;
  readonly idleAfter: string;
  readonly minResidence: string;
  readonly domain: string;
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
      "--nats <url>",
      "keep state and events on NATS instead of the embedded store",
      process.env.NATS_URL,
    )
    .option("--max-concurrent <n>", "most live instances", atLeastOne, 1000)
    .option("--idle-after <duration>", "stop an instance after so long without a request", duration, "5m")
    .option("--min-residence <duration>", "never evict an instance that was used so recently", duration, "1s")
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
    natsUrl: options.nats,
    maxConcurrent: options.maxConcurrent,
    idleAfter: options.idleAfter,
    minResidence: options.minResidence,
    domain: options.domain,
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
    await asked;
  }
  say(pc.dim("stopping; once more Ctrl-C leaves at once"));
  await cell.stop();
  process.exit(exitCodes.ok);
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
