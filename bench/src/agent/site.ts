/** Where agents are measured: a cell's credentials, a scheduler that only takes reports, and agents, each a process. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Client } from "@connectrpc/connect";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { serveRpc } from "@warren/common/rpc/server";
import { toDuration } from "@warren/common/time";
import { type CellSecrets, openCellSecrets } from "@warren/common/tls/cell";
import { AgentService } from "@warren/proto/agent";
import { ExitReason, InstanceState, Role } from "@warren/proto/common";
import { NodeService } from "@warren/proto/scheduler";
import type { Bench } from "../harness/bench.ts";
import { pidsWithEnvironment } from "../harness/procfs.ts";
import type { App } from "./apps.ts";

/** What an agent's process is told. */
export interface NodeSettings {
  readonly node: string;
  readonly runtimeDirectory: string;
  readonly schedulerUrls: readonly string[];
  /** A credentials directory. */
  readonly credentials: string;
}

/** Enough for an agent to stop every tenant it has; after it, it is killed. */
const stopMs = 25_000;

export class Site {
  /** Removed in the end. */
  readonly directory: string;
  readonly #cell: CellSecrets;
  readonly #credentials: Credentials;
  readonly #url: string;
  readonly #bench: Bench;

  private constructor(
    bench: Bench,
    directory: string,
    cell: CellSecrets,
    credentials: Credentials,
    url: string,
  ) {
    this.#bench = bench;
    this.directory = directory;
    this.#cell = cell;
    this.#credentials = credentials;
    this.#url = url;
  }

  static async open(bench: Bench): Promise<Site> {
    const directory = mkdtempSync(join(tmpdir(), "warren-bench-"));
    chmodSync(directory, 0o711); // as /run/warren is: what tenants of other uids run from lies below
    bench.later("removing the directory", () => rmSync(directory, { recursive: true, force: true }));
    const cell = await openCellSecrets(join(directory, "cell"), "bench");
    const { credentials } = await cell.credentialsFor("scheduler", Role.SCHEDULER);
    const reportPeriod = toDuration(1_000);
    const server = await serveRpc({
      name: "scheduler",
      port: 0,
      credentials,
      log: createLogger({ process: "scheduler", level: "warn" }),
      routes: (router) => {
        router.service(NodeService, {
          join: () => ({ epoch: 1n, reportPeriod, cell: "bench" }),
          report: ({ records }) => ({ ackedSeq: records.at(-1)?.seq ?? 0n, reportPeriod, epoch: 1n }),
        });
      },
    });
    bench.later("closing the scheduler", () => server.stop(100));
    return new Site(bench, directory, cell, credentials, server.url);
  }

  /** Starts an agent; it is gone with its tenants when the bench ends. */
  async agent(name: string): Promise<BenchAgent> {
    const node = `bench-${process.pid}-${name}`; // two benches at once must not end each other's tenants
    const { directory: credentials } = await this.#cell.credentialsFor(node, Role.AGENT);
    const settings: NodeSettings = {
      node,
      runtimeDirectory: join(this.directory, node),
      schedulerUrls: [this.#url],
      credentials,
    };
    // A session of its own: Ctrl-C must reach the bench only, which then ends the agent in order.
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "node.ts"), JSON.stringify(settings)], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
      detached: true,
    });
    this.#bench.later(`stopping the agent ${node}`, async () => {
      child.stdin.end();
      const killing = setTimeout(() => child.kill("SIGKILL"), stopMs);
      await child.exited;
      clearTimeout(killing);
      const left = pidsWithEnvironment(`WARREN_NODE=${node}\0`);
      for (const pid of left) process.kill(pid, "SIGKILL");
      if (left.length > 0) throw new Error(`${left.length} processes of tenants were left, and are killed`);
    });
    const { value } = await child.stdout.getReader().read();
    const url = new TextDecoder().decode(value).trim();
    if (!url) throw new Error(`the agent ${node} did not start`);
    const connection = connectRpc({ url, credentials: this.#credentials, deadlineMs: 60_000 });
    this.#bench.later("closing a connection", () => connection.close());
    return new BenchAgent(node, child.pid, connection.client(AgentService));
  }
}

export class BenchAgent {
  constructor(
    readonly node: string,
    readonly pid: number,
    readonly rpc: Client<typeof AgentService>,
  ) {}

  /**
   * Answers the instance once it is ready.
   * @throws Error saying how it ended instead
   */
  async start(tenant: string, app: App) {
    const { instance } = await this.rpc.startInstance({
      epoch: 1n,
      instance: { id: ulid(), tenant, generation: 1n, node: this.node },
      spec: {
        key: tenant,
        source: { case: "directory", value: app.directory },
        readiness: { path: app.path },
      },
    });
    if (instance?.state !== InstanceState.READY) {
      throw new Error(
        `${tenant} did not start: ${instance?.exit?.message || instance?.exit?.lastOutput.join("\n")}`,
      );
    }
    return instance;
  }

  /** Answers when no process of it is left. */
  async stop(instance: string): Promise<void> {
    await this.rpc.stopInstance({ epoch: 1n, instance, reason: ExitReason.KILLED });
  }
}
