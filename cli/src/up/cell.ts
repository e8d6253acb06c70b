/**
 * A whole cell on one machine: scheduler, agents, gateway and metering as child processes on one state directory.
 * Ports are kept from one `up` to the next, so that a process that is started again is found where it was.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { envName } from "@warren/common/config";
import { identify, isAlive, type ProcessIdentity } from "@warren/common/process";
import { loopbackHosts, openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { type Cluster, clusterFile } from "../cluster.ts";
import { exitCodes, UserError } from "../exit.ts";
import type { RungName } from "../names.ts";
import { Child, type ChildEvent } from "./child.ts";
import { makeDirectories } from "./directories.ts";

export interface CellOptions {
  readonly state: string;
  readonly nodes: number;
  readonly gatewayPort: number;
  readonly schedulerPort: number;
  readonly meteringPort: number;
  /** Of the gateway's health and metrics. */
  readonly gatewayAdminPort: number;
  readonly natsUrl?: string;
  /** What tenants pay. */
  readonly plansFile?: string;
  readonly maxConcurrent: number;
  /** As durations: "300s". */
  readonly idleAfter: string;
  readonly freezeAfter?: string;
  readonly minResidence: string;
  /** The highest rung that the agents offer. */
  readonly isolation: RungName;
  /** Address of tenants' HTTP; everything else stays on loopback. Default 127.0.0.1. */
  readonly host?: string;
  readonly domain: string;
  /** Of each node, for tenants; "4GiB" and 2. Default: the host's. */
  readonly memory?: string;
  readonly cpus?: number;
  /** How the world reaches tenants, {tenant} standing for the key; default: from domain and port. */
  readonly publicUrl?: string;
  /** Addresses of proxies whose word on visitors is believed. */
  readonly trustForwarded?: readonly string[];
  readonly onEvent: (event: ChildEvent) => void;
  /** Told when a child serves, in the order of starting. */
  readonly onReady?: (child: Child) => void;
}

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");

/** What children inherit: enough to run, nothing that is the caller's business. */
function environment(): Record<string, string> {
  const env: Record<string, string> = {};
  for (const name of ["PATH", "HOME", "TMPDIR", "LANG", "TZ", "WARREN_BUN", "WARREN_LOG"]) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  // Where traces go, by OpenTelemetry's own names.
  for (const [name, value] of Object.entries(process.env)) {
    if (name.startsWith("OTEL_") && value !== undefined) env[name] = value;
  }
  return env;
}

const portsFile = "ports.json";

/** 0 takes a free one and keeps it. */
interface Port {
  readonly port: number;
  /** The flag that sets it. */
  readonly flag?: string;
}

export class Cell {
  readonly #options: CellOptions;
  readonly #children: Child[] = [];
  #cluster: Cluster | undefined;
  /** The state directory is ours: another `up`'s files are not to be taken away. */
  #locked = false;
  #stopping = false;

  constructor(options: CellOptions) {
    this.#options = options;
  }

  get children(): readonly Child[] {
    return this.#children;
  }

  /** Where the cell's processes are, once it is up. */
  get cluster(): Cluster {
    if (!this.#cluster) throw new Error("the cell is not up");
    return this.#cluster;
  }

  child(name: string): Child {
    const found = this.#children.find((child) => child.name === name);
    if (!found) throw new Error(`no child ${name}`);
    return found;
  }

  /** @throws UserError when another `up` has this state directory, or a child does not come up */
  async start(): Promise<void> {
    const { state, nodes, natsUrl, domain, isolation, plansFile, memory, cpus } = this.#options;
    const { host, publicUrl, trustForwarded = [] } = this.#options;
    makeDirectories(state);
    this.#lock();
    const secrets = await openCellSecrets(join(state, "credentials"), "local");
    const credentials = async (name: string, role: Role) =>
      (await secrets.credentialsFor(name, role, loopbackHosts)).directory;
    const client = await credentials("client", Role.CLIENT);
    await credentials("metrics", Role.METRICS); // for a scraper: it can do nothing else
    const schedulerState = join(state, "scheduler");
    // Not as a flag: it may hold a password, and everybody can read the arguments of a process.
    const nats = (process: string): Record<string, string> =>
      natsUrl ? { [envName(process, "nats")]: natsUrl } : {};

    const scheduler = await this.#run(
      "scheduler",
      { port: this.#options.schedulerPort, flag: "--scheduler-port" },
      [
        "scheduler",
        "--state",
        schedulerState,
        "--credentials",
        await credentials("scheduler", Role.SCHEDULER),
        "--ca",
        secrets.directory,
        "--max-concurrent",
        `${this.#options.maxConcurrent}`,
        "--idle-after",
        this.#options.idleAfter,
        "--min-residence",
        this.#options.minResidence,
        ...(this.#options.freezeAfter ? ["--freeze-after", this.#options.freezeAfter] : []),
        // Its nodes are one host: to see them at work is what several are for.
        "--placement",
        "spread",
      ],
      nats("scheduler"),
    );
    const url = scheduler.facts.url!;
    await this.#dismissOthers();
    for (let i = 1; i <= nodes; i++) {
      const node = `n${i}`;
      await this.#run(`agent-${node}`, { port: 0 }, [
        "agent",
        "--node",
        node,
        "--runtime",
        join(state, "nodes", node),
        "--volumes-dir",
        join(state, "volumes", node),
        "--scheduler",
        url,
        "--credentials",
        await credentials(node, Role.AGENT),
        "--directories",
        "true",
        "--isolation",
        isolation,
        "--on-stop",
        "stop",
        ...(memory === undefined ? [] : ["--memory", memory]),
        ...(cpus === undefined ? [] : ["--cpus", `${cpus}`]),
      ]);
    }
    const gateway = await this.#run("gateway", { port: this.#options.gatewayPort, flag: "--port" }, [
      "gateway",
      "--scheduler",
      url,
      "--admin-port",
      `${this.#options.gatewayAdminPort}`,
      "--domain",
      domain,
      "--credentials",
      await credentials("gateway", Role.GATEWAY),
      ...(host === undefined ? [] : ["--host", host]),
      ...(publicUrl === undefined ? [] : ["--public-url", publicUrl]),
      ...(trustForwarded.length === 0 ? [] : ["--trust-forwarded", trustForwarded.join(",")]),
    ]);
    const metering = await this.#run(
      "metering",
      { port: this.#options.meteringPort, flag: "--metering-port" },
      [
        "metering",
        "--state",
        join(state, "metering"),
        "--scheduler",
        url,
        "--credentials",
        await credentials("metering", Role.METERING),
        ...(natsUrl ? [] : ["--journal", schedulerState]),
        ...(plansFile === undefined ? [] : ["--plans", plansFile]),
      ],
      nats("metering"),
    );
    this.#cluster = {
      scheduler: url,
      metering: metering.facts.url!,
      gateway: `http://${domain}:${new URL(gateway.facts.url!).port}`,
      gatewayAdmin: gateway.facts.admin,
      credentials: client,
    };
    this.#write(clusterFile, this.#cluster);
  }

  /** In reverse: the gateway takes nothing new before the tenants go. */
  async stop(): Promise<void> {
    const { state } = this.#options;
    this.#stopping = true; // a start under way goes no further
    const byName = (prefix: string) => this.#children.filter(({ name }) => name.startsWith(prefix));
    for (const group of [byName("gateway"), byName("agent"), byName("metering"), byName("scheduler")]) {
      await Promise.all(group.map((child) => child.stop()));
    }
    if (!this.#locked) return;
    rmSync(join(state, clusterFile), { force: true });
    rmSync(join(state, "up.json"), { force: true });
  }

  async #run(
    name: string,
    port: Port,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Child> {
    const { onReady } = this.#options;
    if (this.#stopping) throw new UserError("stopped while starting", exitCodes.interrupted);
    const child = this.#child(name, port, args, env);
    this.#children.push(child);
    await child.start();
    this.#write(portsFile, { ...this.#lastPorts(), [name]: Number(new URL(child.facts.url!).port) });
    onReady?.(child);
    return child;
  }

  /** Agents that an `up` with more nodes left behind when it was killed. */
  async #dismissOthers(): Promise<void> {
    const { state, nodes } = this.#options;
    for (const file of readdirSync(join(state, "run"))) {
      const n = /^agent-n(\d+)\.json$/.exec(file)?.[1];
      if (n !== undefined && Number(n) > nodes)
        await this.#child(`agent-n${n}`, { port: 0 }, [], {}).dismiss();
    }
  }

  #child(
    name: string,
    { port, flag }: Port,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ): Child {
    const { state, onEvent } = this.#options;
    return new Child({
      name,
      executable: join(root, "cli", "bin", "warren"),
      args,
      port,
      portFlag: flag,
      lastPort: this.#lastPorts()[name],
      readyFile: join(state, "run", `${name}.json`),
      logFile: join(state, "logs", `${name}.log`),
      env: { ...environment(), ...env },
      startDeadlineMs: 30_000,
      stopDeadlineMs: name.startsWith("agent") ? 60_000 : 15_000,
      onEvent,
    });
  }

  /** One `up` per state directory; one that was killed holds nothing, since its pid is not its identity. */
  #lock(): void {
    const path = join(this.#options.state, "up.json");
    if (existsSync(path)) {
      const other = JSON.parse(readFileSync(path, "utf8")) as ProcessIdentity;
      if (other.pid !== process.pid && isAlive(other)) {
        throw new UserError(
          `'warren up' already runs on ${this.#options.state} (pid ${other.pid}): use it, stop it, or give this one another --state`,
          exitCodes.refused,
        );
      }
    }
    this.#write("up.json", identify(process.pid));
    this.#locked = true;
  }

  /** Ports by child, as an earlier `up` had them. */
  #lastPorts(): Record<string, number> {
    const path = join(this.#options.state, portsFile);
    return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Record<string, number>) : {};
  }

  #write(file: string, value: unknown): void {
    const path = join(this.#options.state, file);
    writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }
}
