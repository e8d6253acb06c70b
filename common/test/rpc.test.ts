import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import { MeteringService } from "@warren/proto/metering";
import { SchedulerService } from "@warren/proto/scheduler";
import pino from "pino";
import { createMetrics } from "../src/metrics.ts";
import { connectRpc, streaming } from "../src/rpc/client.ts";
import type { Credentials } from "../src/rpc/credentials.ts";
import {
  Code,
  ConnectError,
  fromTransport,
  wasNeverSent,
  wasNotAnswered,
  wasSilent,
} from "../src/rpc/errors.ts";
import { type RpcServer, ServeError, serveRpc } from "../src/rpc/server.ts";
import { isQuick } from "../src/testing/quick.ts";
import { pause } from "../src/time.ts";
import { openCellSecrets } from "../src/tls/cell.ts";

let directory: string;
let server: RpcServer;
let serverCredentials: Credentials;
let client: Credentials;
let gateway: Credentials;
let foreign: Credentials;
let scraper: Credentials;
let watchers = 0;
const log = pino({ level: "silent" });

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-common-"));
  const cell = await openCellSecrets(join(directory, "cell"), "test");
  const other = await openCellSecrets(join(directory, "other"), "other");
  serverCredentials = (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials;
  client = (await cell.credentialsFor("client", Role.CLIENT)).credentials;
  gateway = (await cell.credentialsFor("gateway", Role.GATEWAY)).credentials;
  scraper = (await cell.credentialsFor("prometheus", Role.METRICS)).credentials;
  foreign = (await other.credentialsFor("gateway", Role.GATEWAY)).credentials;
  server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials: serverCredentials,
    log,
    metrics: createMetrics("warren_test"),
    routes: (router) => {
      router.service(SchedulerService, {
        ensure: (request) => ({ url: `http://${request.tenant}.localhost` }),
        getTenant: () => {
          throw new Error("secret inside");
        },
        async *watchEvents(_request, context) {
          while (!context.signal.aborted) {
            yield {};
            await pause(10, context.signal);
          }
        },
        async *watchEndpoints(_request, context) {
          watchers++;
          try {
            while (!context.signal.aborted) {
              yield { node: "x".repeat(100_000) };
            }
          } finally {
            watchers--;
          }
        },
      });
    },
  });
});

afterAll(async () => {
  await server.stop(100);
  await rm(directory, { recursive: true });
});

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

function open(credentials: Credentials, url = server.url, protocol?: "grpc" | "connect") {
  return connectRpc({ url, credentials, deadlineMs: 5_000, protocol });
}

test("what a dead connection says in whatever words is UNAVAILABLE, and known for that", () => {
  for (const message of [
    "PING timed out",
    "Session closed with error code 0",
    "connect ECONNREFUSED 127.0.0.1:1",
  ]) {
    const error = fromTransport(new ConnectError(message, Code.Unavailable), "https://x:1", false);
    expect([error.code, wasNotAnswered(error)]).toEqual([Code.Unavailable, true]);
    expect(wasSilent(error)).toBe(message.startsWith("PING"));
    expect(wasNeverSent(error)).toBe(message.includes("ECONNREFUSED"));
  }
  expect(wasNotAnswered(new ConnectError("in back-off", Code.Unavailable))).toBe(false);
});

describe("calls", () => {
  test.each(["connect", "grpc"] as const)("%s answers", async (protocol) => {
    const connection = open(client, server.url, protocol);
    expect((await connection.client(SchedulerService).ensure({ tenant: "a" })).url).toBe(
      "http://a.localhost",
    );
    connection.close();
  });

  test("a deadline need not be whole ms", async () => {
    const connection = open(client);
    const answer = await connection
      .client(SchedulerService)
      .ensure({ tenant: "a" }, { timeoutMs: 1234.5678 });
    expect(answer.url).toBeTruthy();
    connection.close();
  });

  test("a curl with JSON over HTTP/1.1 and the CA answers", async () => {
    const process = Bun.spawn(
      [
        "curl",
        "-sS",
        "--http1.1",
        "--cacert",
        join(directory, "cell/ca.crt"),
        "-H",
        `Authorization: Bearer ${client.token}`,
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"tenant":"b"}',
        `${server.url}/warren.scheduler.v1.SchedulerService/Ensure`,
      ],
      { stderr: "inherit" },
    );
    expect(JSON.parse(await new Response(process.stdout).text())).toEqual({ url: "http://b.localhost" });
  });

  test("what is not implemented answers UNIMPLEMENTED", async () => {
    const connection = open(client);
    expect((await failure(connection.client(SchedulerService).reload({ tenant: "a" }))).code).toBe(
      Code.Unimplemented,
    );
    expect((await failure(connection.client(MeteringService).getUsage({}))).code).toBe(Code.Unimplemented);
    connection.close();
  });

  test.each(["../x", "A", "a".repeat(64), "", ".", "-a", "a-", "a_b", "a\n"])(
    "a bad key %j is refused before a handler sees it, by the field's name",
    async (tenant) => {
      const connection = open(client);
      const error = await failure(connection.client(SchedulerService).ensure({ tenant }));
      expect(error.code).toBe(Code.InvalidArgument);
      expect(error.message).toContain("tenant: must be a DNS label");
      connection.close();
    },
  );

  test("a handler's own failure shows nothing of its inside", async () => {
    const connection = open(client);
    const error = await failure(connection.client(SchedulerService).getTenant({ tenant: "a" }));
    expect(error.code).toBe(Code.Internal);
    expect(error.message).not.toContain("secret");
    connection.close();
  });

  test("a message over the bound is refused and the connection goes on", async () => {
    const connection = open(client);
    const rpc = connection.client(SchedulerService);
    const big = await failure(rpc.applyTenant({ spec: { key: "a", env: { A: "x".repeat(5_000_000) } } }));
    expect([Code.ResourceExhausted, Code.InvalidArgument]).toContain(big.code);
    expect((await rpc.ensure({ tenant: "a" })).url).toBeTruthy();
    connection.close();
  });
});

describe("rule 10: credentials", () => {
  test("without one only health answers", async () => {
    const connection = open({ ca: client.ca });
    expect((await connection.client(Health).check({})).status).toBe(1);
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "a" }));
    expect(error.code).toBe(Code.Unauthenticated);
    expect(error.message).toContain("no credential");
    connection.close();
  });

  test("a certificate alone is enough, and carries its role", async () => {
    const connection = open({ ...gateway, token: undefined });
    expect((await connection.client(SchedulerService).ensure({ tenant: "a" })).url).toBeTruthy();
    const error = await failure(connection.client(SchedulerService).stop({ tenant: "a" }));
    expect(error.code).toBe(Code.PermissionDenied);
    expect(error.message).toContain("is for client; this credential is for gateway");
    connection.close();
  });

  test("a wrong token is refused with the remedy", async () => {
    const connection = open({ ca: client.ca, token: foreign.token });
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "a" }));
    expect(error.code).toBe(Code.Unauthenticated);
    expect(error.message).toContain("state directory");
    connection.close();
  });

  test("a foreign client certificate is refused, even with a good token", async () => {
    const connection = open({ ca: client.ca, cert: foreign.cert, key: foreign.key, token: client.token });
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "a" }));
    expect(error.code).toBe(Code.Unauthenticated);
    expect(error.message).toContain("not signed by this cell's CA");
    connection.close();
  });

  test("a server of another cell is not believed", async () => {
    const connection = open(foreign);
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "a" }));
    expect(error.code).toBe(Code.Unavailable);
    expect(error.message).toContain("CA did not sign");
    connection.close();
  });

  test("metrics need a credential", async () => {
    const get = (token?: string) =>
      fetch(`${server.url}/metrics`, {
        headers: token ? { authorization: `Bearer ${token}` } : {},
        tls: { ca: client.ca },
      });
    expect((await get()).status).toBe(401);
    const answer = await get(client.token);
    expect(answer.status).toBe(200);
    expect(await answer.text()).toContain("warren_test_process_resident_memory_bytes");
  });

  test("rule 10: a credential for metrics reads metrics, and calls nothing", async () => {
    const answer = await fetch(`${server.url}/metrics`, {
      headers: { authorization: `Bearer ${scraper.token}` },
      tls: { ca: scraper.ca },
    });
    expect(answer.status).toBe(200);
    const connection = open(scraper);
    const scheduler = connection.client(SchedulerService);
    for (const call of [scheduler.ensure({ tenant: "a" }), scheduler.getTenant({ tenant: "a" })])
      expect((await failure(call)).code).toBe(Code.PermissionDenied);
    connection.close();
  });
});

describe("trouble", () => {
  test("a taken port is named with the remedy", async () => {
    const options = {
      name: "scheduler",
      port: server.port,
      credentials: serverCredentials,
      log,
      routes: () => {},
    };
    const error = await serveRpc(options).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ServeError);
    expect((error as Error).message).toContain(`port ${server.port} on 127.0.0.1 is taken`);
  });

  test("a server that is not there is UNAVAILABLE, by its URL", async () => {
    const connection = open(client, "https://127.0.0.1:1");
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "a" }));
    expect(error.code).toBe(Code.Unavailable);
    expect(error.message).toContain("https://127.0.0.1:1 cannot be reached");
    connection.close();
  });

  test("a stream that its reader leaves ends at the server, under back-pressure too", async () => {
    const connection = open(client);
    let seen = 0;
    for await (const _ of streaming((signal) =>
      connection.client(SchedulerService).watchEndpoints({ gateway: "g" }, { signal }),
    )) {
      if (++seen === 20) break;
    }
    const deadline = Date.now() + 5_000;
    while (watchers > 0 && Date.now() < deadline) await new Promise((done) => setImmediate(done));
    expect(watchers).toBe(0);
    connection.close();
  });

  test.skipIf(isQuick)(
    "closing a connection with a stream open harms nobody, then or later",
    async () => {
      // In a child, since what would go wrong is an uncaught error out of a timer of 5 s.
      const child = Bun.spawn(
        [
          process.execPath,
          join(import.meta.dir, "close-child.ts"),
          server.url,
          join(directory, "cell/client"),
        ],
        { stdout: "pipe", stderr: "pipe" },
      );
      expect(await child.exited, await new Response(child.stderr).text()).toBe(0);
      expect(await new Response(child.stdout).text()).toBe("fine\n");
    },
    15_000,
  );

  test("1,500 cancelled calls leave the connection standing", async () => {
    const connection = open(client);
    const rpc = connection.client(SchedulerService);
    for (let round = 0; round < 15; round++) {
      await Promise.allSettled(
        Array.from({ length: 100 }, () => rpc.ensure({ tenant: "a" }, { signal: AbortSignal.timeout(0) })),
      );
    }
    expect((await rpc.ensure({ tenant: "a" })).url).toBeTruthy();
    connection.close();
  });

  test("a call to a server that stops is UNAVAILABLE, and the next one finds its successor", async () => {
    const make = (port: number) =>
      serveRpc({
        name: "scheduler",
        port,
        credentials: serverCredentials,
        log,
        routes: (router) => router.service(SchedulerService, { ensure: () => ({ url: "x" }) }),
      });
    const first = await make(0);
    const connection = open(client, first.url);
    const rpc = connection.client(SchedulerService);
    await rpc.ensure({ tenant: "a" });
    await first.stop(100);
    expect((await failure(rpc.ensure({ tenant: "a" }))).code).toBe(Code.Unavailable);
    const second = await make(first.port);
    expect((await rpc.ensure({ tenant: "a" })).url).toBe("x");
    connection.close();
    await second.stop(100);
  });
});
