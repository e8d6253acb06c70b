/**
 * A cell as on a fleet: a NATS server, several schedulers, agents and a gateway, each a process that nobody starts again
 * unless the test does. (A cell of `warren up` has one scheduler, and a supervisor that would interfere.)
 */
import { openSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Warren } from "@warren/client";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { detailOf } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { type NotLeader, NotLeaderSchema, Role } from "@warren/proto/common";
import { type GetStatsResponse, SchedulerService } from "@warren/proto/scheduler";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { warrenBin } from "./cli.ts";
import type { FakeClock, FakeClocks } from "./fake-clock.ts";
import type { LoadTarget } from "./load/options.ts";

export interface FleetOptions {
  readonly schedulers: number;
  readonly agents: number;
  /** "2s": see `warren scheduler --takeover-after`. */
  readonly takeoverAfter: string;
  /** Where NATS is reached; default: a server of the fleet's own. */
  readonly natsUrl?: string;
  /** A metering process too, that reaches NATS there. */
  readonly metering?: { readonly natsUrl: string };
  /** Default "none". */
  readonly isolation?: string;
  /** Where an agent keeps its runtime directory; default: in the fleet's own. */
  readonly runtimeOf?: (node: string) => string;
  /** Each process has a wall clock of its own ({@link FleetProcess.stepClock}). */
  readonly clocks?: FakeClocks;
  readonly schedulerArgs?: readonly string[];
  readonly agentArgs?: readonly string[];
  readonly gatewayArgs?: readonly string[];
}

/** What a scheduler says when it is asked directly. */
export type Word =
  | { readonly kind: "leads"; readonly stats: GetStatsResponse }
  | { readonly kind: "follows"; readonly leader: NotLeader }
  | { readonly kind: "silent"; readonly why: string };

const startMs = 20_000;
const stopMs = 20_000;

export class Fleet implements AsyncDisposable {
  readonly schedulers: FleetProcess[] = [];
  readonly agents: FleetProcess[] = [];
  gateway!: FleetProcess;
  metering: FleetProcess | undefined;
  /** Credentials directories and logs are below it. */
  root = "";
  /** A client that knows all schedulers. */
  warren!: Warren;
  client!: Credentials;
  /** The directory of the client's credentials. */
  clientDirectory = "";
  /** As a scheduler has them: to command agents as one. */
  commander!: Credentials;
  readonly #open: Warren[] = [];
  readonly #undo: (() => unknown)[] = [];

  static async start(options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet();
    try {
      await fleet.#start(options);
      return fleet;
    } catch (error) {
      await fleet[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A client that knows only these. */
  connect(...schedulers: FleetProcess[]): Warren {
    const warren = new Warren({
      url: schedulers.map(({ url }) => url),
      meteringUrl: this.metering?.url,
      credentials: this.client,
    });
    this.#open.push(warren);
    return warren;
  }

  /** Asks one scheduler, and nobody else, within `timeoutMs`. */
  async ask(scheduler: FleetProcess, timeoutMs = 2_000): Promise<Word> {
    const connection = connectRpc({ url: scheduler.url, credentials: this.client });
    try {
      return { kind: "leads", stats: await connection.client(SchedulerService).getStats({}, { timeoutMs }) };
    } catch (error) {
      const leader = detailOf(error, NotLeaderSchema);
      return leader ? { kind: "follows", leader } : { kind: "silent", why: (error as Error).message };
    } finally {
      connection.close();
    }
  }

  /** The scheduler that leads with an epoch above `above`; waits for it. */
  async leader(above = 0n, deadlineMs = 20_000): Promise<{ leader: FleetProcess; epoch: bigint }> {
    return waitUntil(
      async () => {
        for (const leader of this.schedulers) {
          if (!leader.alive) continue;
          const word = await this.ask(leader, 500);
          if (word.kind === "leads" && word.stats.epoch > above) return { leader, epoch: word.stats.epoch };
        }
        return undefined;
      },
      { deadlineMs, what: `a leader with an epoch above ${above}` },
    );
  }

  target(tenant: string): LoadTarget {
    return { url: this.gateway.url, host: `${tenant}.localhost` };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const warren of this.#open) warren.close();
    await this.gateway?.stop();
    await this.metering?.stop();
    await Promise.all(this.agents.map((agent) => agent.stop()));
    await Promise.all(this.schedulers.map((scheduler) => scheduler.stop()));
    for (const undo of this.#undo.reverse()) await undo();
  }

  async #ownNats(): Promise<string> {
    const nats = await startNatsServer();
    this.#undo.push(() => nats[Symbol.asyncDispose]());
    return nats.url;
  }

  async #start(options: FleetOptions): Promise<void> {
    const { schedulers, agents, takeoverAfter, metering, isolation = "none", clocks } = options;
    const root = await mkdtemp(join(tmpdir(), "warren-fleet-"));
    this.root = root;
    this.#undo.push(() => rm(root, { recursive: true, force: true }));
    const natsUrl = options.natsUrl ?? (await this.#ownNats());
    const { runtimeOf = (node: string) => join(root, node) } = options;
    const secrets = await openCellSecrets(join(root, "credentials"), "local");
    const credentials = (name: string, role: Role) => secrets.credentialsFor(name, role);
    const client = await credentials("client", Role.CLIENT);
    this.client = client.credentials;
    this.clientDirectory = client.directory;
    this.commander = (await credentials("s1", Role.SCHEDULER)).credentials;
    const make = async (name: string, role: Role, args: string[]): Promise<FleetProcess> => {
      const { directory } = await credentials(name, role);
      return new FleetProcess(name, root, [...args, "--credentials", directory], clocks);
    };
    const numbers = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
    for (const i of numbers(schedulers)) {
      const scheduler = await make(`s${i}`, Role.SCHEDULER, [
        ...["scheduler", "--name", `s${i}`, "--state", join(root, `s${i}`), "--nats", natsUrl],
        ...["--takeover-after", takeoverAfter, "--min-residence", "100ms"],
        ...(options.schedulerArgs ?? []),
      ]);
      this.schedulers.push(scheduler);
      await scheduler.start();
    }
    const urls = this.schedulers.map(({ url }) => url).join(",");
    for (const i of numbers(agents)) {
      const agent = await make(`n${i}`, Role.AGENT, [
        ...["agent", "--node", `n${i}`, "--runtime", runtimeOf(`n${i}`), "--scheduler", urls],
        ...["--isolation", isolation, "--on-stop", "stop", ...(options.agentArgs ?? [])],
      ]);
      this.agents.push(agent);
    }
    await Promise.all(this.agents.map((agent) => agent.start()));
    this.gateway = await make("gateway", Role.GATEWAY, [
      ...["gateway", "--scheduler", urls, "--admin-port", "0", ...(options.gatewayArgs ?? [])],
    ]);
    await this.gateway.start();
    if (metering) {
      this.metering = await make("metering", Role.METERING, [
        ...["metering", "--state", join(root, "metering"), "--nats", metering.natsUrl],
      ]);
      await this.metering.start();
    }
    this.warren = this.connect(...this.schedulers);
    await waitUntil(
      async () => {
        const stats = await this.warren.scheduler.getStats({});
        return stats.gateways === 1 && stats.nodesUp === agents;
      },
      { deadlineMs: startMs, what: "gateway and nodes to report" },
    );
  }
}

/** One `warren` process, known by its ready file. */
export class FleetProcess {
  readonly #args: readonly string[];
  readonly #readyFile: string;
  readonly #log: string;
  readonly #clock: FakeClock | undefined;
  #child: Bun.Subprocess | undefined;
  #url = "";
  // Should the tests' process end early.
  readonly #atExit = () => this.#child?.kill("SIGKILL");

  constructor(
    readonly name: string,
    root: string,
    args: readonly string[],
    clocks?: FakeClocks,
  ) {
    this.#clock = clocks?.clock(name);
    this.#readyFile = join(root, `${name}.ready`);
    this.#log = join(root, `${name}.log`);
    this.#args = [...args, "--ready-file", this.#readyFile];
  }

  /** "https://host:port", or "http://…" of a gateway. */
  get url(): string {
    return this.#url;
  }

  /** Of the process as it was started last. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get alive(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  /** On the port that it had before, if it had one. */
  async start(): Promise<void> {
    rmSync(this.#readyFile, { force: true });
    const log = openSync(this.#log, "a");
    const port = this.#url ? new URL(this.#url).port : "0";
    this.#child = Bun.spawn([warrenBin, ...this.#args, "--port", port], {
      env: {
        PATH: process.env.PATH!,
        HOME: process.env.HOME ?? "/",
        WARREN_LOG: "info",
        ...this.#clock?.env,
      },
      stdio: ["ignore", log, log],
    });
    process.on("exit", this.#atExit);
    const ready = await waitUntil(() => this.#ready(), {
      deadlineMs: startMs,
      what: `${this.name} to serve`,
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.log()}`);
    });
    this.#url = ready.facts.url;
  }

  /** Sets its wall clock to so many seconds beside the true time. */
  stepClock(seconds: number): void {
    this.#clock?.step(seconds);
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** SIGKILL, until it is gone. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.#child?.exited;
    process.off("exit", this.#atExit);
  }

  /** In order, even if it was stopped before; after 20 s by SIGKILL. */
  async stop(): Promise<void> {
    if (this.alive) {
      this.signal("SIGCONT");
      this.signal("SIGTERM");
      await waitUntil(() => !this.alive, { deadlineMs: stopMs }).catch(() => {});
    }
    await this.kill();
  }

  /** What it has logged. */
  log(): string {
    return readFileSync(this.#log, "utf8");
  }

  #ready(): { facts: { url: string } } | undefined {
    if (!this.alive) throw new Error(`${this.name} has ended`);
    try {
      return JSON.parse(readFileSync(this.#readyFile, "utf8")) as { facts: { url: string } };
    } catch {
      return undefined; // not there yet
    }
  }
}
