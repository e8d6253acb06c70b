/** A whole cell for a test or the demo: real processes, free ports, a directory of its own, nothing left behind. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cell, type CellOptions } from "@warren/cli/up/cell";
import { loadCredentials, Warren } from "@warren/client";
import { identify, isAlive, type ProcessIdentity } from "@warren/common/process";
import { waitUntil } from "@warren/common/time";
import type { Instance } from "@warren/proto/common";
import { InstanceState } from "@warren/proto/common";

export interface TestCell extends AsyncDisposable {
  readonly cell: Cell;
  readonly warren: Warren;
  readonly state: string;
  /** "http://<tenant>.localhost:<port><path>" */
  url(tenant: string, path?: string): string;
  /** A request to a tenant through the gateway; bounded by 30 s. */
  get(tenant: string, path?: string, init?: RequestInit): Promise<Response>;
  /** Instances that serve. */
  ready(tenant?: string): Promise<Instance[]>;
  /** Every process that was seen of this cell: its children and its tenants. */
  remember(): Promise<void>;
  /** Those of them that are still alive. */
  left(): ProcessIdentity[];
  stop(): Promise<void>;
}

const examples = join(import.meta.dir, "..", "..", "examples");

/** Path of an example. */
export function example(name: string): string {
  return join(examples, name);
}

export async function startCell(options: Partial<CellOptions> = {}): Promise<TestCell> {
  const directory = options.state ?? (await mkdtemp(join(tmpdir(), "warren-cell-")));
  const cell = new Cell({
    state: directory,
    nodes: 1,
    gatewayPort: 0,
    schedulerPort: 0,
    meteringPort: 0,
    gatewayAdminPort: 0,
    maxConcurrent: 100,
    idleAfter: "5m",
    minResidence: "500ms",
    isolation: "auto",
    domain: "localhost",
    onEvent: () => {},
    ...options,
  });
  const seen = new Map<string, ProcessIdentity>();
  const see = (pid: number | undefined): void => {
    const identity = pid ? identify(pid) : undefined;
    if (identity) seen.set(`${identity.pid}:${identity.startTime}`, identity);
  };
  const remember = async () => {
    for (const child of cell.children) see(child.pid);
    const { instances } = await warren.scheduler.listInstances({});
    for (const { pid } of instances) see(pid);
  };
  try {
    await cell.start();
  } catch (error) {
    await cell.stop();
    throw error;
  }
  const { cluster } = cell;
  const warren = new Warren({
    url: cluster.scheduler,
    meteringUrl: cluster.metering,
    credentials: loadCredentials(cluster.credentials),
  });
  const url = (tenant: string, path = "/") => `${cluster.gateway.replace("://", `://${tenant}.`)}${path}`;
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= (async () => {
      await remember().catch(() => {}); // a cell that is half dead is stopped all the same
      warren.close();
      await cell.stop();
      if (options.state === undefined) await rm(directory, { recursive: true, force: true });
    })();
    return stopped;
  };
  const testCell: TestCell = {
    cell,
    warren,
    state: directory,
    url,
    get: (tenant, path, init) =>
      fetch(url(tenant, path), { signal: AbortSignal.timeout(30_000), redirect: "manual", ...init }),
    async ready(tenant = "") {
      const { instances } = await warren.scheduler.listInstances({ tenant });
      return instances.filter(({ state }) => state === InstanceState.READY);
    },
    remember,
    left: () => [...seen.values()].filter(isAlive),
    stop,
    [Symbol.asyncDispose]: stop,
  };
  // The gateway and all nodes have spoken: from here on an ensure finds everything in place.
  await waitUntil(
    async () => {
      const stats = await warren.scheduler.getStats({});
      return stats.gateways > 0 && stats.nodesUp === (options.nodes ?? 1);
    },
    { deadlineMs: 15_000, what: "gateway and nodes to report" },
  );
  return testCell;
}
