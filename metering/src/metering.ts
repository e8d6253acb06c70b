/** Starts the metering process: ledger → journal → serve → follow; and stops it in reverse. */
import type { Logger } from "@warren/common/log";
import type { Credentials } from "@warren/common/rpc/credentials";
import { serveRpc } from "@warren/common/rpc/server";
import { systemClock } from "@warren/common/time";
import { cellOf } from "@warren/common/tls/ca";
import { MeteringService } from "@warren/proto/metering";
import { LivePlans } from "./billing/live-plans.ts";
import { plansMetrics } from "./billing/metrics.ts";
import { Follower } from "./follower.ts";
import { type LedgerLocation, type LedgerOptions, openLedger } from "./ledger/open.ts";
import { meteringMetrics } from "./metrics.ts";
import { meteringService } from "./service.ts";
import { openReader, sourceOf } from "./source.ts";
import { startSpending } from "./spending/start.ts";

export interface MeteringOptions extends LedgerLocation, LedgerOptions {
  /** The scheduler's state directory, to read the embedded journal; need not exist yet. This or `natsUrl`. */
  readonly journalDirectory?: string;
  /** The NATS that carries the events. */
  readonly natsUrl?: string;
  /** Under which name NATS shows what was counted; default "warren-metering". One metering at a time. */
  readonly consumer?: string;
  /** What tenants pay; looked at for changes while it runs. Without one nothing is priced. */
  readonly plansFile?: string;
  /** The cell's schedulers, to hold limits on tenants' use and to put budget alerts into the journal. Without them neither. */
  readonly schedulerUrls?: readonly string[];
  /** Between two reports of these, in ms; default 2 s. */
  readonly reportEveryMs?: number;
  /** Address to listen on; default 127.0.0.1. */
  readonly host?: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly credentials: Credentials;
  readonly log: Logger;
}

export interface Metering extends AsyncDisposable {
  /** "https://host:port" */
  readonly url: string;
  readonly port: number;
  /** Finishes the batch in hand; at most about 6 s. */
  stop(): Promise<void>;
}

/** For running calls when it stops, in ms. */
const graceMs = 1_000;

/**
 * @throws ConfigError when not exactly one journal is named, or no ledger, the plans file is wrong, or too much would be folded
 * @throws StoreLockedError, StoreMismatchError when the ledger is in use, of a newer version, or none
 * @throws StoreUnavailableError when there is no NATS at `natsUrl`, or no PostgreSQL at `ledgerUrl`
 * @throws ServeError when the port is taken or the credentials are not a server's
 */
export async function startMetering(options: MeteringOptions): Promise<Metering> {
  const { log } = options;
  const source = sourceOf(options);
  await using resources = new AsyncDisposableStack();
  const plans =
    options.plansFile === undefined ? undefined : resources.use(LivePlans.open(options.plansFile, { log }));
  const ledger = resources.use(await openLedger(options));
  const reader = resources.use(await openReader(options));
  const metrics = meteringMetrics(ledger, source);
  if (plans) plansMetrics(metrics.registry, plans);
  const cell = cellOf(options.credentials.ca);
  const server = await serveRpc({
    name: "metering",
    host: options.host,
    port: options.port,
    credentials: options.credentials,
    log,
    metrics: metrics.registry,
    routes: (router) =>
      router.service(
        MeteringService,
        meteringService({ ledger, source, cell, plans: () => plans?.current, clock: systemClock }),
      ),
  });
  resources.defer(() => server.stop(graceMs));
  const counting = options.schedulerUrls?.length
    ? resources.use(
        startSpending({
          ...options,
          schedulerUrls: options.schedulerUrls,
          everyMs: options.reportEveryMs,
          ledger,
          plans,
          registry: metrics.registry,
          clock: systemClock,
        }),
      ).ledger
    : ledger;
  const { consumer } = options;
  resources.use(
    Follower.start({ reader, ledger: counting, source, consumer, metrics, clock: systemClock, log }),
  );
  // All is up: from here on it is `stop` that disposes.
  const running = resources.move();
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= running.disposeAsync();
    return stopped;
  };
  log.info({ url: server.url, source }, "metering counts");
  return { url: server.url, port: server.port, stop, [Symbol.asyncDispose]: stop };
}
