/**
 * Starts a scheduler: open the store → serve → follow or lead, as the lease says; and stops it in reverse. It serves from
 * the start: one that does not lead answers with the address of the one that does.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import type { EventFormat } from "@warren/common/cloudevents";
import type { Logger } from "@warren/common/log";
import type { Credentials } from "@warren/common/rpc/credentials";
import { type RpcServer, ServeError, serveRpc } from "@warren/common/rpc/server";
import { DeadlineError, systemClock, withDeadline } from "@warren/common/time";
import { type CertificateAuthority, fingerprintOf } from "@warren/common/tls/ca";
import { joinTokenVerifier } from "@warren/common/tls/join-token";
import { EnrolService, NodeService, SchedulerService } from "@warren/proto/scheduler";
import { leaseTimings, openStore, type Store, type StreamOptions } from "@warren/store";
import { Campaign } from "./campaign.ts";
import { type CoreConfig, defaultCoreConfig } from "./core/config.ts";
import { Leadership } from "./leadership.ts";
import { type SchedulerMetrics, schedulerMetrics } from "./metrics.ts";
import { Outbox } from "./outbox.ts";
import { Releases } from "./releases.ts";
import { gated } from "./services/enrol-gate.ts";
import { led } from "./services/led.ts";

export interface SchedulerOptions {
  /** Its name: stable over restarts on the same state directory. Default "scheduler". */
  readonly name?: string;
  /** Where it keeps its state: everything of the embedded store, or its identity on NATS. */
  readonly stateDirectory: string;
  /** NATS instead of the embedded store. */
  readonly natsUrl?: string;
  /** On NATS: a follower takes over when the lease was not renewed for so long, in ms. Default 20 s. */
  readonly takeoverMs?: number;
  readonly host?: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** "https://host:port" where agents, gateways and clients reach it, told by those that follow. Default: where it listens. */
  readonly advertiseUrl?: string;
  readonly credentials: Credentials;
  /** The cell's CA: with it hosts may join by token. Whoever has it can make any credential of the cell. */
  readonly authority?: CertificateAuthority;
  readonly config?: Partial<CoreConfig>;
  /** What is kept of events, and on NATS how. All schedulers of a cell must agree. */
  readonly streams?: StreamOptions;
  /** Of events' payloads. Default "json". */
  readonly eventFormat?: EventFormat;
  readonly version: string;
  readonly log: Logger;
  /** Told when it can neither lead nor follow any more: stop the process. A lost lease is no such thing. */
  readonly onFatal: (error: Error) => void;
}

export interface Scheduler extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Of its term; 0 while it follows. */
  readonly epoch: bigint;
  stop(): Promise<void>;
}

/** So long a start waits until it is known who leads; a store that does not answer then must not keep it from serving. */
const settleMs = 5_000;
/** Events under way get so long at the end; the next process sends what is left. */
const lastWordsMs = 2_000;

/**
 * Resolves once it serves, and leads or knows whom it follows (or does not, for 5 s).
 * @throws StoreUnavailableError, StoreLockedError, StoreMismatchError, ServeError: each names cause and remedy
 */
export async function startScheduler(options: SchedulerOptions): Promise<Scheduler> {
  const config: CoreConfig = { ...defaultCoreConfig, ...options.config };
  checkAuthority(options);
  const store = await openStore({
    url: options.natsUrl,
    directory: options.stateDirectory,
    cell: config.cell,
    ...options.streams,
    lease: options.takeoverMs === undefined ? undefined : leaseTimings(options.takeoverMs),
  });
  let server: RpcServer | undefined;
  let outbox: Outbox | undefined;
  try {
    const { log } = options;
    // What the process before this one could not send is sent, whoever leads.
    outbox = new Outbox({
      journal: store.journal,
      path: join(options.stateDirectory, "events.outbox"),
      log,
    });
    const leadership = new Leadership((leads) => server?.health.setService(SchedulerService.typeName, leads));
    const metrics = schedulerMetrics(leadership, outbox, config.maxConcurrent);
    server = await serve(options, leadership, metrics);
    server.health.setService(SchedulerService.typeName, false);
    return await campaign(options, config, store, outbox, server, leadership, metrics);
  } catch (error) {
    await server?.stop(0);
    await outbox?.stop(0);
    await store.close();
    throw error;
  }
}

/** @throws ServeError */
function checkAuthority({ credentials, authority }: SchedulerOptions): void {
  if (authority && fingerprintOf(authority.cert) !== fingerprintOf(credentials.ca))
    throw new ServeError("the CA that the scheduler was given is not that of its own credentials");
}

function serve(
  options: SchedulerOptions,
  leadership: Leadership,
  metrics: SchedulerMetrics,
): Promise<RpcServer> {
  const { host, port, credentials, log } = options;
  return serveRpc({
    name: "scheduler",
    // A cell has up to about 5,000 nodes, each with an agent and a gateway.
    connections: { most: 16_384 },
    host,
    port,
    credentials,
    log,
    metrics: metrics.registry,
    routes(router) {
      router.service(
        NodeService,
        led(NodeService, leadership, (term) => term.nodeService),
      );
      router.service(
        EnrolService,
        gated(
          led(EnrolService, leadership, (term) => term.enrolService),
          {
            verify: joinTokenVerifier(credentials.tokenKey, credentials.ca),
            monotonic: systemClock.monotonic,
            onOutcome: metrics.enrolled,
          },
        ),
      );
      router.service(
        SchedulerService,
        led(SchedulerService, leadership, (term) => term.schedulerService),
      );
    },
  });
}

async function campaign(
  options: SchedulerOptions,
  config: CoreConfig,
  store: Store,
  outbox: Outbox,
  server: RpcServer,
  leadership: Leadership,
  { decided: onDecided }: SchedulerMetrics,
): Promise<Scheduler> {
  const { log, credentials, authority, version, name = "scheduler", eventFormat = "json" } = options;
  const releases = new Releases({
    blobs: store.blobs,
    directory: join(options.stateDirectory, "uploads"),
    clock: systemClock,
    holdMs: config.releases.graceMs,
  });
  await releases.start();
  const address = options.advertiseUrl ?? reachable(server, options.host);
  let serving = false;
  const onFatal = (error: Error): void => {
    if (serving) options.onFatal(error);
  };
  const running = new Campaign(
    {
      name,
      address,
      store,
      outbox,
      releases,
      config,
      credentials,
      authority,
      version,
      eventFormat,
      log,
      leadership,
      onDecided,
    },
    onFatal,
  );
  try {
    await withDeadline(running.settled, settleMs, "finding out who leads");
  } catch (error) {
    if (!(error instanceof DeadlineError)) {
      await running.stop();
      throw error;
    }
    log.warn("it is not known yet who leads: the store does not answer; serving all the same");
  }
  serving = true;
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= (async () => {
      await running.stop(); // the lease first: while this one says farewell, the next one leads already
      await outbox.stop(lastWordsMs);
      await server.stop(1_000);
      await store.close();
    })();
    return stopped;
  };
  return {
    url: server.url,
    port: server.port,
    get epoch() {
      return leadership.term?.epoch ?? 0n;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** One that listens on every address is reached by its host's name. */
function reachable(server: RpcServer, host = ""): string {
  return host === "0.0.0.0" || host === "::" ? `https://${hostname()}:${server.port}` : server.url;
}
