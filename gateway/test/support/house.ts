/** A gateway with a scripted scheduler, and everything it needs; nothing of it is left afterwards. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "@warren/common/log";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import { type Gateway, type GatewayOptions, startGateway } from "../../src/index.ts";
import { ScriptedScheduler } from "./scheduler.ts";

/** One cell for all tests of this process: issuing takes a while. */
let cell: ReturnType<typeof makeCell> | undefined;

async function makeCell() {
  const directory = await mkdtemp(join(tmpdir(), "warren-gateway-"));
  try {
    const secrets = await openCellSecrets(directory, "test");
    const scheduler = (await secrets.credentialsFor("scheduler", Role.SCHEDULER)).credentials;
    const gateway = (await secrets.credentialsFor("gateway", Role.GATEWAY)).credentials;
    const agent = (await secrets.credentialsFor("n1", Role.AGENT)).credentials;
    return { scheduler, gateway, agent };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export async function testCredentials() {
  cell ??= makeCell();
  return cell;
}

export interface House extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly scheduler: ScriptedScheduler;
  /** Asks the gateway for a tenant, by Host. */
  ask(tenant: string, path?: string, init?: RequestInit): Promise<Response>;
}

export async function openHouse(options: Partial<GatewayOptions> = {}): Promise<House> {
  const credentials = await testCredentials();
  const scheduler = new ScriptedScheduler(credentials.scheduler);
  await scheduler.start();
  const gateway = await startGateway({
    name: "gw",
    schedulerUrls: [scheduler.url],
    credentials: credentials.gateway,
    port: 0,
    adminPort: null,
    holdDeadlineMs: 5_000,
    absenceMs: 300,
    touchIntervalMs: 20,
    drainMs: 200,
    log: createLogger({ process: "gateway", level: process.env.WARREN_LOG ?? "silent" }),
    ...options,
  });
  await waitUntil(() => gateway.stats().watching, { deadlineMs: 5_000, what: "the watch" });
  return {
    gateway,
    scheduler,
    ask(tenant, path = "/", init = {}) {
      const headers = new Headers(init.headers);
      headers.set("Host", `${tenant}.localhost`);
      return fetch(`http://127.0.0.1:${gateway.port}${path}`, { redirect: "manual", ...init, headers });
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop(0);
      await scheduler.stop();
    },
  };
}

/** A tenant: any Bun server on a free port. */
export function upstream(
  fetch: (
    request: Request,
    server: Bun.Server<undefined>,
  ) => Response | Promise<Response | undefined> | undefined,
  websocket?: Bun.WebSocketHandler<undefined>,
) {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    fetch,
    websocket: websocket ?? { message() {} },
  });
  return {
    port: server.port!,
    stop: () => server.stop(true),
    [Symbol.asyncDispose]: async () => {
      await Promise.race([server.stop(true), Bun.sleep(200)]);
    },
  };
}

/** A port on which nobody listens. */
export async function deadPort(): Promise<number> {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = server;
  server.stop(true);
  return port;
}
