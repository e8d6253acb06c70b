import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import { SchedulerService } from "@warren/proto/scheduler";
import pino from "pino";
import { createMetrics } from "../src/metrics.ts";
import { connectRpc } from "../src/rpc/client.ts";
import type { ConnectionBounds } from "../src/rpc/connections.ts";
import type { Credentials } from "../src/rpc/credentials.ts";
import { serveRpc } from "../src/rpc/server.ts";
import { pause, waitUntil } from "../src/time.ts";
import { openCellSecrets } from "../src/tls/cell.ts";

let directory: string;
let own: Credentials;
let client: Credentials;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-connections-"));
  const cell = await openCellSecrets(join(directory, "cell"), "test");
  own = (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials;
  client = (await cell.credentialsFor("client", Role.CLIENT)).credentials;
});
afterAll(() => rm(directory, { recursive: true }));

async function serve(connections: ConnectionBounds) {
  const metrics = createMetrics("warren_test");
  const server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials: own,
    log: pino({ level: "silent" }),
    metrics,
    connections,
    routes: (router) => {
      router.service(SchedulerService, {
        ensure: ({ tenant }) => ({ url: `http://${tenant}.localhost` }),
        async *watchEvents(_request, context) {
          while (!context.signal.aborted) {
            yield {};
            await pause(10, context.signal);
          }
        },
      });
    },
  });
  const cut = async (why: string) => {
    const { values } = (await metrics.getSingleMetric("warren_rpc_connections_cut_total")!.get()) as {
      values: { value: number; labels: { why?: string } }[];
    };
    return values.find(({ labels }) => labels.why === why)?.value ?? 0;
  };
  return { server, cut };
}

/** Connections that say nothing. */
async function silent(port: number, count: number): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => connect(port, "127.0.0.1"));
  for (const socket of sockets) socket.on("error", () => socket.destroy()).resume();
  await Promise.all(
    sockets.map((socket) => new Promise((done) => socket.once("connect", done).once("close", done))),
  );
  return sockets;
}

describe("connections of strangers", () => {
  test("hundreds that say nothing neither take all room nor keep an honest call from its answer", async () => {
    const { server, cut } = await serve({ most: 20, firstCallMs: 60_000 });
    const early = connectRpc({ url: server.url, credentials: client, deadlineMs: 5_000 });
    await early.client(SchedulerService).ensure({ tenant: "a" });
    const sockets = await silent(server.port, 300);
    await waitUntil(async () => (await cut("full")) >= 281, { deadlineMs: 10_000 });
    await waitUntil(() => sockets.filter((socket) => !socket.destroyed).length <= 19, { deadlineMs: 10_000 });
    const late = connectRpc({ url: server.url, credentials: client, deadlineMs: 5_000 });
    for (const connection of [early, late]) {
      expect((await connection.client(SchedulerService).ensure({ tenant: "b" })).url).toBe(
        "http://b.localhost",
      );
      connection.close();
    }
    for (const socket of sockets) socket.destroy();
    await server.stop(100);
  });

  test("one that says nothing is cut after its time; streams of those who were let in go on", async () => {
    const { server, cut } = await serve({ firstCallMs: 300 });
    const connection = connectRpc({ url: server.url, credentials: client });
    const health = connectRpc({ url: server.url, credentials: { ca: client.ca } as Credentials });
    const leave = new AbortController();
    const options = { signal: leave.signal };
    const events = connection.client(SchedulerService).watchEvents({}, options)[Symbol.asyncIterator]();
    const states = health.client(Health).watch({}, options)[Symbol.asyncIterator]();
    expect((await events.next()).done).toBe(false);
    expect((await states.next()).done).toBe(false);
    const [socket] = await silent(server.port, 1);
    await waitUntil(() => socket!.destroyed, { deadlineMs: 10_000 });
    expect(await cut("silent")).toBe(1);
    for (let i = 0; i < 20; i++) expect((await events.next()).done).toBe(false);
    server.health.serving = false;
    expect((await states.next()).done).toBe(false);
    leave.abort();
    connection.close();
    health.close();
    await server.stop(100);
  });

  test("when all have shown a credential, one more is refused at once", async () => {
    const { server, cut } = await serve({ most: 1 });
    const connection = connectRpc({ url: server.url, credentials: client, deadlineMs: 5_000 });
    await connection.client(SchedulerService).ensure({ tenant: "a" });
    const [socket] = await silent(server.port, 1);
    await waitUntil(() => socket!.destroyed, { deadlineMs: 10_000 });
    expect(await cut("full")).toBe(1);
    expect((await connection.client(SchedulerService).ensure({ tenant: "b" })).url).toBeTruthy();
    connection.close();
    await server.stop(100);
  });
});
