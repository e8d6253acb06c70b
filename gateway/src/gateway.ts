/** Puts a gateway together, and takes it apart in reverse. */

import { ulid } from "@warren/common/ids";
import { createLogger, type Logger } from "@warren/common/log";
import { type RpcServer, ServeError, serveRpc } from "@warren/common/rpc/server";
import { pause } from "@warren/common/time";
import type { Server } from "bun";
import { Agents } from "./agents.ts";
import { Dispatch } from "./dispatch.ts";
import { connectScheduler } from "./link.ts";
import { createGatewayMetrics } from "./metrics.ts";
import { type GatewayOptions, type Settings, settingsOf } from "./options.ts";
import { idleSeconds, TenantProxy } from "./proxy.ts";
import { Rouser } from "./rouser.ts";
import { EndpointTable } from "./table.ts";
import { Toucher } from "./toucher.ts";
import { Traffic } from "./traffic.ts";
import { TrafficReporter } from "./traffic-reporter.ts";
import { TrustedProxies } from "./trusted.ts";
import { Wakes } from "./wakes.ts";
import { Watcher } from "./watcher.ts";
import { Bridge, type SocketData } from "./websocket.ts";

/** A running gateway. */
export interface Gateway extends AsyncDisposable {
  /** Its name and a ULID of this start. */
  readonly id: string;
  /** Where tenants' HTTP arrives: "http://host:port". */
  readonly url: string;
  readonly port: number;
  /** "https://host:port" of health, reflection and metrics, if they are served. */
  readonly adminUrl: string | undefined;
  /** What it does now. */
  stats(): GatewayStats;
  /** Takes no new request, lets those in flight finish until the deadline, cuts the rest, tells the scheduler. */
  stop(drainMs?: number): Promise<void>;
}

export interface GatewayStats {
  /** Requests, streams and WebSockets open at tenants. */
  readonly inFlight: number;
  /** Requests that wait for their tenant to start. */
  readonly held: number;
  /** Whether a watch of the scheduler's endpoints stands. */
  readonly watching: boolean;
}

/**
 * Starts a gateway. It needs no scheduler to start: until one answers, its requests are refused with 503.
 * @throws TypeError naming an option that cannot be
 * @throws ServeError when a port is taken, or an address is not ours
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const settings = settingsOf(options);
  const log = options.log ?? createLogger({ process: "gateway", node: settings.name });
  warnOfFetchLimit(log);
  const id = `${settings.name}-${ulid()}`;
  let publicUrl = options.publicUrl ?? "";
  const link = connectScheduler({
    urls: options.schedulerUrls,
    credentials: options.credentials,
    patienceMs: settings.absenceMs,
    gateway: id,
    publicUrl: () => publicUrl,
  });
  const table = new EndpointTable({
    monotonic: () => performance.now(),
    onAsleep(route) {
      if (route.inFlight === 0) agents.prepare(route.node);
      else rouser.rouse(route, AbortSignal.timeout(settings.holdDeadlineMs)).catch(() => {});
    },
  });
  const agents = new Agents({
    credentials: options.credentials,
    urlOf: (node) => table.agentOf(node),
    deadlineMs: 2_000,
  });
  const { holdDeadlineMs, absenceMs, maxHeld, maxHeldPerTenant } = settings;
  const wakes = new Wakes({ table, link, maxHeld, maxHeldPerTenant, deadlineMs: holdDeadlineMs, absenceMs });
  const toucher = new Toucher({
    table,
    link,
    log,
    intervalMs: settings.touchIntervalMs,
    maxBatch: 5_000, // a message may hold 10,000
    deadlineMs: 2_000,
  });
  const traffic = new Traffic({ gateway: id, maxBatch: 2_000, keep: 10_000 }); // as many as a message holds
  const trafficReporter = new TrafficReporter({
    traffic,
    link,
    log,
    intervalMs: settings.trafficIntervalMs,
    deadlineMs: 10_000, // the journal's is 5 s
    lastWordsMs: 3_000,
  });
  const watcher = new Watcher({
    link,
    log,
    onMessage(message) {
      if (table.apply(message)) toucher.soon();
    },
    onUp: () => toucher.again(),
    onDown: () => {},
    silenceMs: settings.watchSilenceMs,
    retryMs: { base: 50, max: 5_000 },
  });
  const metrics = createGatewayMetrics({
    held: () => wakes.held,
    inFlight: () => table.inFlight,
    instances: () => table.size,
    watchUp: () => watcher.up,
    trafficTenants: () => traffic.size,
  });
  const rouser = new Rouser({
    thaw: (route) => agents.thaw(route),
    isStale: () => !watcher.up,
    deadlineMs: holdDeadlineMs,
    metrics,
  });
  const onDrained = () => toucher.soon();
  const dispatch = new Dispatch({ table, traffic, wakes, rouser, metrics, holdDeadlineMs, onDrained });
  const bridge = new Bridge(settings);
  const trusted = new TrustedProxies(settings.trustForwarded);
  const proxy = new TenantProxy({ ...settings, trusted, dispatch, bridge, metrics, log });

  const server = listen(settings, proxy, bridge, log);
  let admin: RpcServer | undefined;
  try {
    admin = await serveAdmin(options, settings, log, metrics.registry);
  } catch (error) {
    await server.stop(true);
    link.close();
    agents.close();
    throw error;
  }
  publicUrl ||= `http://{tenant}.${settings.domain}:${server.port}`;
  watcher.start();
  toucher.start();
  trafficReporter.start();
  const url = `http://${shown(settings.host)}:${server.port}`;
  log.info({ id, url, domain: settings.domain, schedulers: options.schedulerUrls }, "the gateway is up");

  const stop = async (drainMs: number): Promise<void> => {
    if (admin) admin.health.serving = false;
    proxy.drain();
    bridge.closeAll();
    const deadline = performance.now() + drainMs;
    void server.stop(false); // no new connections
    while ((table.inFlight > 0 || wakes.held > 0) && performance.now() < deadline) await pause(5);
    await Promise.race([server.stop(true), pause(1_000)]);
    await watcher.stop();
    await Promise.all([toucher.stop(), trafficReporter.stop()]);
    link.close();
    agents.close();
    await admin?.stop(500);
    log.info("the gateway is down");
  };
  let stopping: Promise<void> | undefined;
  const stopOnce = (drainMs = settings.drainMs) => {
    stopping ??= stop(drainMs);
    return stopping;
  };
  return {
    id,
    url,
    port: server.port ?? settings.port,
    adminUrl: admin?.url,
    stats: () => ({ inFlight: table.inFlight, held: wakes.held, watching: watcher.up }),
    stop: stopOnce,
    [Symbol.asyncDispose]: () => stopOnce(),
  };
}

function listen(settings: Settings, proxy: TenantProxy, bridge: Bridge, log: Logger): Server<SocketData> {
  const { host, port } = settings;
  try {
    return Bun.serve<SocketData>({
      hostname: host,
      port,
      idleTimeout: idleSeconds(settings.idleConnectionMs),
      // Bodies are passed on, not kept: their bound is the tenant's affair.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
      // Bun sets SO_REUSEPORT with `development: false`: a second gateway would silently take half of the requests.
      reusePort: false,
      fetch: (request, server) => proxy.handle(request, server),
      websocket: bridge.handler,
      error(error) {
        log.error({ err: error }, "a request failed");
        return new Response(null, { status: 500 });
      },
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why: Record<string, string> = {
      EADDRINUSE: `port ${port} on ${host} is taken by another process: stop it, or give the gateway another port (0 takes any free one)`,
      EACCES: `port ${port} on ${host} needs a privilege: take one above 1023`,
      EADDRNOTAVAIL: `${host} is not an address of this machine`,
    };
    throw new ServeError(why[code ?? ""] ?? `the gateway cannot listen on ${host}:${port}: ${message}`);
  }
}

async function serveAdmin(
  { credentials }: GatewayOptions,
  { adminHost, adminPort }: Settings,
  log: Logger,
  metrics: Parameters<typeof serveRpc>[0]["metrics"],
): Promise<RpcServer | undefined> {
  if (adminPort === null) return undefined;
  const routes = () => {};
  return serveRpc({
    name: "gateway's admin server",
    host: adminHost,
    port: adminPort,
    credentials,
    routes,
    log,
    metrics,
  });
}

/** Bun's fetch allows 256 requests at once per process: 256 streams, and nothing else goes through. */
function warnOfFetchLimit(log: Logger): void {
  if (process.env.BUN_CONFIG_MAX_HTTP_REQUESTS) return;
  log.warn(
    "BUN_CONFIG_MAX_HTTP_REQUESTS is not set: only 256 requests and streams can be open at once. Set it before the start, to 65535 say",
  );
}

function shown(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
