/** What the agent's tests share: a cell of credentials, a scheduler that only listens, and agents in temporary places. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { ulid } from "@warren/common/ids";
import { createLogger, type Logger } from "@warren/common/log";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { toDuration, waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { AgentService } from "@warren/proto/agent";
import {
  ExitReason,
  type Instance,
  InstanceRefSchema,
  InstanceState,
  Role,
  type TenantSpecSchema,
  type Transition,
  type UsageReport,
} from "@warren/proto/common";
import { type JoinRequest, type NodeRecord, NodeService, type ReportRequest } from "@warren/proto/scheduler";
import { pack } from "tar-stream";
import { readStat } from "../src/host/procfs.ts";
import { type Agent, type AgentOptions, startAgent } from "../src/index.ts";

export const fixtures = join(import.meta.dir, "fixtures");
export const silent = createLogger({ process: "test", level: process.env.WARREN_TEST_LOG ?? "silent" });

/** A logger that hands over what it is told to warn of. */
export function recordingLog(said: (line: Record<string, unknown>) => void): Logger {
  const warn = (fields: Record<string, unknown>, msg: string) => said({ ...fields, msg });
  return new Proxy(silent, { get: (target, key) => (key === "warn" ? warn : Reflect.get(target, key)) });
}

/** A directory that is removed when the test file is done. */
export class TestSite implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "warren-agent-"));
  readonly #undo: (() => unknown)[] = [];
  readonly credentials: Record<"agent" | "scheduler" | "gateway" | "client" | "foreign", Credentials>;

  private constructor(credentials: TestSite["credentials"]) {
    this.credentials = credentials;
  }

  static async open(): Promise<TestSite> {
    const secrets = mkdtempSync(join(tmpdir(), "warren-agent-cell-"));
    const cell = await openCellSecrets(join(secrets, "cell"), "test");
    const other = await openCellSecrets(join(secrets, "other"), "test");
    const of = async (name: string, role: Role) => (await cell.credentialsFor(name, role)).credentials;
    const site = new TestSite({
      agent: await of("agent", Role.AGENT),
      scheduler: await of("scheduler", Role.SCHEDULER),
      gateway: await of("gateway", Role.GATEWAY),
      client: await of("client", Role.CLIENT),
      foreign: (await other.credentialsFor("agent", Role.AGENT)).credentials,
    });
    rmSync(secrets, { recursive: true });
    return site;
  }

  later(undo: () => unknown): void {
    this.#undo.push(undo);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  async scheduler(): Promise<FakeScheduler> {
    const scheduler = await FakeScheduler.start(this.credentials.scheduler);
    this.later(() => scheduler.stop());
    return scheduler;
  }

  options(schedulerUrl: string, more: Partial<AgentOptions> = {}): AgentOptions {
    return {
      node: "n1",
      runtimeDirectory: this.path(`run-${ulid().slice(-8).toLowerCase()}`),
      schedulerUrls: [schedulerUrl],
      credentials: this.credentials.agent,
      port: 0,
      capacity: { memoryBytes: 1024 ** 3, cpuMillis: 2000, maxInstances: 200 },
      allowDirectories: true,
      onStop: "stop",
      observeIntervalMs: 50,
      usageIntervalMs: 100,
      isolation: "none",
      log: silent,
      ...more,
    };
  }

  /** An agent in this process; stopped with its tenants in the end. */
  async agent(schedulerUrl: string, more: Partial<AgentOptions> = {}): Promise<TestAgent> {
    const options = this.options(schedulerUrl, more);
    const agent = await startAgent(options);
    this.later(() => agent.stop());
    return new TestAgent(this, options, agent);
  }

  /**
   * An agent in a process of its own, to be killed.
   * @param program run by Bun; default: the agent as it is
   */
  async spawnAgent(
    options: AgentOptions,
    program: readonly string[] = [join(import.meta.dir, "agent-process.ts")],
  ): Promise<AgentProcess> {
    const child = Bun.spawn([process.execPath, ...program], {
      stdin: new Blob([JSON.stringify({ ...options, log: undefined })]),
      stdout: "pipe",
      stderr: "inherit",
    });
    this.later(() => child.kill("SIGKILL"));
    const { value } = await child.stdout.getReader().read();
    // It may have been killed before it could say where it serves.
    const said =
      value && (JSON.parse(new TextDecoder().decode(value)) as { url: string; incarnation: string });
    return {
      process: child,
      t: said && new TestAgent(this, options, said as TestAgent["agent"]),
      async kill() {
        child.kill("SIGKILL");
        await child.exited;
      },
    } as AgentProcess;
  }

  client(url: string, credentials = this.credentials.scheduler): Client<typeof AgentService> {
    const connection = connectRpc({ url, credentials, deadlineMs: 20_000 });
    this.later(() => connection.close());
    return connection.client(AgentService);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (let undo = this.#undo.pop(); undo; undo = this.#undo.pop()) await undo();
    // Theirs are the homes below this directory: other tests, in other processes, have their own.
    const left = pidsWhoseEnvironmentHas(`HOME=${this.directory}/`);
    for (const pid of left) process.kill(pid, "SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`the agents of this test left processes behind: ${left.join(", ")}`);
  }
}

export interface AgentProcess {
  readonly process: Bun.Subprocess;
  readonly t: TestAgent;
  kill(): Promise<void>;
}

export class TestAgent {
  readonly rpc: Client<typeof AgentService>;
  epoch = 1n;

  constructor(
    readonly site: TestSite,
    readonly options: AgentOptions,
    readonly agent: Agent,
  ) {
    this.rpc = site.client(agent.url);
  }

  ref(tenant = "app", more: Partial<{ id: string; release: string; generation: bigint }> = {}) {
    return create(InstanceRefSchema, {
      id: ulid(),
      tenant,
      generation: 1n,
      node: this.options.node,
      ...more,
    });
  }

  /** Starts a fixture; answers the instance as the RPC did. */
  async start(
    file: string,
    spec: Omit<MessageInitShape<typeof TenantSpecSchema>, "$typeName"> = {},
    ref = this.ref(),
  ): Promise<Instance> {
    const { instance } = await this.rpc.startInstance({
      epoch: this.epoch,
      instance: ref,
      spec: {
        key: ref.tenant,
        source: { case: "directory", value: fixtures },
        command: ["bun", file],
        ...spec,
      },
    });
    return instance!;
  }

  async stop(id: string, reason = ExitReason.KILLED, graceMs?: number): Promise<Instance | undefined> {
    const { instance } = await this.rpc.stopInstance({
      epoch: this.epoch,
      instance: id,
      reason,
      grace: graceMs === undefined ? undefined : toDuration(graceMs),
    });
    return instance;
  }

  async list(): Promise<Instance[]> {
    return (await this.rpc.listInstances({})).instances;
  }
}

/** Takes what agents report and keeps it. */
export class FakeScheduler {
  readonly joins: JoinRequest[] = [];
  readonly reports: ReportRequest[] = [];
  readonly records: NodeRecord[] = [];
  readonly releases = new Map<string, Uint8Array>();
  downloads = 0;
  epoch = 1n;
  /** Answer FAILED_PRECONDITION to the next report. */
  forget = false;
  /** Answer UNAVAILABLE to reports. */
  deaf = false;
  server!: RpcServer;
  #known = false;
  readonly #seen = new Map<string, bigint>();

  static async start(credentials: Credentials, port = 0): Promise<FakeScheduler> {
    const scheduler = new FakeScheduler();
    await scheduler.listen(credentials, port);
    return scheduler;
  }

  async listen(credentials: Credentials, port: number): Promise<void> {
    this.server = await serveRpc({
      name: "scheduler",
      port,
      credentials,
      log: silent,
      routes: (router) => {
        router.service(NodeService, {
          join: (request) => {
            this.joins.push(request);
            this.#known = true;
            return { epoch: this.epoch, reportPeriod: toDuration(200), cell: "test" };
          },
          report: (request) => {
            if (this.deaf) throw rpcError(Code.Unavailable, "deaf");
            if (this.forget || !this.#known) {
              this.forget = false;
              throw rpcError(Code.FailedPrecondition, "who are you?");
            }
            this.reports.push(request);
            const last = this.#seen.get(request.stream) ?? 0n;
            const fresh = request.records.filter((record) => record.seq > last);
            this.records.push(...fresh);
            this.#seen.set(request.stream, fresh.at(-1)?.seq ?? last);
            return {
              ackedSeq: request.records.at(-1)?.seq ?? 0n,
              reportPeriod: toDuration(200),
              epoch: this.epoch,
            };
          },
          downloadRelease: ({ digest }) => this.#download(digest),
        });
      },
    });
  }

  get url(): string {
    return this.server.url;
  }

  /** A release of these files, to be downloaded. */
  async release(files: Record<string, string>): Promise<{ digest: string; bytes: Uint8Array }> {
    const tar = pack();
    for (const [name, body] of Object.entries(files)) tar.entry({ name, mode: 0o644 }, body);
    tar.finalize();
    const chunks: Uint8Array[] = [];
    for await (const chunk of tar) chunks.push(chunk as Uint8Array);
    const bytes = Buffer.concat(chunks);
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    this.releases.set(digest, bytes);
    return { digest, bytes };
  }

  transitions(id: string): Transition[] {
    return this.records.flatMap(({ what }) =>
      what.case === "transition" && what.value.instance?.id === id ? [what.value] : [],
    );
  }

  usages(id: string): UsageReport[] {
    return this.records.flatMap(({ what }) =>
      what.case === "usage" && what.value.instance?.id === id ? [what.value] : [],
    );
  }

  async untilExited(id: string): Promise<Transition> {
    return waitUntil(() => this.transitions(id).find((one) => one.to === InstanceState.EXITED), {
      deadlineMs: 10_000,
      what: `the end of ${id} is reported`,
    });
  }

  async stop(): Promise<void> {
    await this.server.stop(100);
  }

  async *#download(digest: string) {
    this.downloads++;
    const bytes = this.releases.get(digest);
    if (!bytes) throw rpcError(Code.NotFound, `no release ${digest}`);
    for (let at = 0; at < bytes.length; at += 65_536) yield { chunk: bytes.subarray(at, at + 65_536) };
  }
}

/** How a call failed. Not `expect().rejects`: that spins the event loop, which cuts an HTTP/2 server in this process. */
export async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof ConnectError)) throw new Error(`expected a ConnectError, got ${error}`);
  return error;
}

/** Pids whose command line holds the text, zombies excepted. */
export function pidsWith(text: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, "latin1").replaceAll("\0", " ");
      const state = readFileSync(`/proc/${name}/stat`, "latin1").split(") ")[1]?.[0];
      return line.includes(text) && state !== "Z" ? [Number(name)] : [];
    } catch {
      return []; // gone meanwhile
    }
  });
}

/** Pids that carry the instance in their environment. */
export function pidsOf(instance: string): number[] {
  return pidsWhoseEnvironmentHas(`WARREN_INSTANCE=${instance}`);
}

function pidsWhoseEnvironmentHas(text: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/environ`, "latin1").includes(text) ? [Number(name)] : [];
    } catch {
      return []; // gone meanwhile
    }
  });
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.[0] !== "Z";
  } catch {
    return false;
  }
}

/** State and CPU of a process, as the kernel tells them now. */
export function readState(pid: number): { state: string; cpuTicks: number } | undefined {
  return readStat(pid);
}
