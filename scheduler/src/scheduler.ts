/** Starts a scheduler: open the store → acquire the lease → load → serve; and stops it in reverse. */
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import type { Credentials } from "@warren/common/rpc/credentials";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { systemClock } from "@warren/common/time";
import { NodeService, SchedulerService } from "@warren/proto/scheduler";
import { type Lease, openStore, type Store } from "@warren/store";
import { Agents } from "./agents.ts";
import { type CoreConfig, defaultCoreConfig } from "./core/config.ts";
import { Engine } from "./engine.ts";
import { schedulerMetrics } from "./metrics.ts";
import { Outbox } from "./outbox.ts";
import { loadedFrom } from "./records.ts";
import { Releases } from "./releases.ts";
import { instanceRpcs } from "./services/instance-rpcs.ts";
import { nodeService } from "./services/node-service.ts";
import { streamRpcs } from "./services/stream-rpcs.ts";
import { tenantRpcs } from "./services/tenant-rpcs.ts";
import { StateWriter } from "./state-writer.ts";
import { Watchers } from "./watchers.ts";

export interface SchedulerOptions {
  /** Its name: stable over restarts on the same state directory. Default "scheduler". */
  readonly name?: string;
  /** Where it keeps its state: everything of the embedded store, or its identity on NATS. */
  readonly stateDirectory: string;
  /** NATS instead of the embedded store. */
  readonly natsUrl?: string;
  readonly host?: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly credentials: Credentials;
  readonly config?: Partial<CoreConfig>;
  readonly version: string;
  readonly log: Logger;
  /** Told when it can command no more (its lease is lost): stop the process. */
  readonly onFatal: (error: Error) => void;
  /** Gives up waiting for the lease. */
  readonly signal?: AbortSignal;
}

export interface Scheduler extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly epoch: bigint;
  stop(): Promise<void>;
}

/**
 * @throws StoreUnavailableError, StoreLockedError, StoreMismatchError, ServeError: each names cause and remedy
 */
export async function startScheduler(options: SchedulerOptions): Promise<Scheduler> {
  const { log } = options;
  const name = options.name ?? "scheduler";
  const config: CoreConfig = { ...defaultCoreConfig, ...options.config };
  const store = await openStore({
    url: options.natsUrl,
    directory: options.stateDirectory,
    cell: config.cell,
  });
  try {
    const lease = await store.acquireLease({
      holder: name,
      address: "",
      signal: options.signal ?? new AbortController().signal,
      onWaiting: ({ holder, epoch }) =>
        log.info({ holder, epoch: `${epoch}` }, "another scheduler leads; waiting"),
    });
    try {
      return await lead(store, lease, { ...options, name }, config);
    } catch (error) {
      await lease.release();
      throw error;
    }
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function lead(
  store: Store,
  lease: Lease,
  options: SchedulerOptions & { name: string },
  config: CoreConfig,
): Promise<Scheduler> {
  const { log, name } = options;
  const { epoch } = lease;
  const stopping = new AbortController();
  let fatal = false;
  const onStale = (error: Error): void => {
    if (fatal || stopping.signal.aborted) return;
    fatal = true;
    log.error({ err: error }, "this scheduler's lease is over");
    options.onFatal(error);
  };
  lease.lost.addEventListener("abort", () => onStale(lease.lost.reason as Error), { once: true });

  const snapshot = await store.state.load();
  const writer = new StateWriter({ state: store.state, lastSeq: snapshot.lastSeq, log, onStale });
  const outbox = new Outbox({ journal: store.journal, source: name, epoch, log });
  const watchers = new Watchers(epoch);
  const agents = new Agents({ credentials: options.credentials, epoch, signal: stopping.signal, onStale });
  const engine = new Engine({ config, epoch, clock: systemClock, log, agents, outbox, writer, watchers });
  engine.feed({ type: "load", loaded: loadedFrom(snapshot) });
  const releases = new Releases({
    blobs: store.blobs,
    directory: join(options.stateDirectory, "uploads"),
    clock: systemClock,
  });
  await releases.start();
  const services = {
    engine,
    store,
    writer,
    releases,
    watchers,
    agents,
    epoch,
    log,
    version: options.version,
    stopping: stopping.signal,
  };
  const server: RpcServer = await serveRpc({
    name: "scheduler",
    // A cell has up to about 5,000 nodes, each with an agent and a gateway.
    connections: { most: 16_384 },
    host: options.host,
    port: options.port,
    credentials: options.credentials,
    log,
    metrics: schedulerMetrics(engine.core.state, config.maxConcurrent, () => outbox.dropped),
    routes(router) {
      router.service(NodeService, nodeService(services));
      router.service(SchedulerService, {
        ...tenantRpcs(services),
        ...instanceRpcs(services),
        ...streamRpcs(services),
      });
    },
  });
  engine.start();
  log.info(
    { url: server.url, epoch: `${epoch}`, store: store.kind, maxConcurrent: config.maxConcurrent },
    "the scheduler leads",
  );

  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    stopping.abort();
    watchers.close();
    await server.stop(1_000);
    engine.stop();
    await writer.stop(2_000);
    await outbox.stop(2_000);
    agents.close();
    await lease
      .release()
      .catch((error: Error) => log.warn({ err: error }, "the lease was not given up cleanly"));
    await store.close();
  };
  const once = () => {
    stopped ??= stop();
    return stopped;
  };
  return { url: server.url, port: server.port, epoch, stop: once, [Symbol.asyncDispose]: once };
}
