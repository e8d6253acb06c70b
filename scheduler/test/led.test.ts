/** Who does not lead says nothing but who does, on a real server and client. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServiceImpl } from "@connectrpc/connect";
import { createLogger } from "@warren/common/log";
import { connectRpc, type RpcConnection } from "@warren/common/rpc/client";
import { Code, ConnectError, detailOf, rpcError } from "@warren/common/rpc/errors";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { openCellSecrets } from "@warren/common/tls/cell";
import { NotLeaderSchema, Role } from "@warren/proto/common";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@warren/proto/grpc";
import { SchedulerService } from "@warren/proto/scheduler";
import { Leadership } from "../src/leadership.ts";
import { led } from "../src/services/led.ts";
import type { Term } from "../src/term.ts";

let directory: string;
let server: RpcServer;
let connection: RpcConnection;
/** What the lease says by its clock. */
let held = true;
let leads = false;
let handlers: Partial<ServiceImpl<typeof SchedulerService>> = {};
const leadership = new Leadership((now) => {
  leads = now;
  server.health.setService(SchedulerService.typeName, now);
});
/** What `led` needs of a term: the whole of one needs a store, and integration tests have those. */
const term = {
  get holds() {
    return held;
  },
} as Term;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-led-"));
  const cell = await openCellSecrets(directory, "test");
  server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials: (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials,
    log: createLogger({ process: "test", level: "silent" }),
    routes: (router) => {
      router.service(
        SchedulerService,
        led(SchedulerService, leadership, () => handlers),
      );
    },
  });
  const { credentials } = await cell.credentialsFor("client", Role.CLIENT);
  connection = connectRpc({ url: server.url, credentials });
});

beforeEach(() => {
  held = true;
  handlers = {};
  leadership.lead(term);
});

afterAll(async () => {
  connection.close();
  await server.stop(0);
  await rm(directory, { recursive: true });
});

const client = () => connection.client(SchedulerService);

async function refusal(promise: Promise<unknown>) {
  const error = await promise.catch((e: unknown) => e);
  expect(error).toBeInstanceOf(ConnectError);
  expect((error as ConnectError).code).toBe(Code.Unavailable);
  return detailOf(error, NotLeaderSchema);
}

describe("a call", () => {
  test("is answered by who leads", async () => {
    handlers = { ensure: ({ tenant }) => ({ url: tenant }) };
    expect((await client().ensure({ tenant: "a" })).url).toBe("a");
    expect(leads).toBe(true);
  });

  test("at a follower hears of its leader, and nothing was done", async () => {
    let asked = 0;
    handlers = { ensure: () => ({ url: `${asked++}` }) };
    leadership.follow({ holder: "other", address: "https://other:1", epoch: 7n });
    expect(await refusal(client().ensure({ tenant: "a" }))).toMatchObject({
      leaderUrl: "https://other:1",
      epoch: 7n,
      begun: false,
    });
    leadership.follow();
    expect(await refusal(client().ensure({ tenant: "a" }))).toMatchObject({ leaderUrl: "", begun: false });
    expect(asked).toBe(0);
  });

  test("at one whose lease is over by the clock is not answered, even if nothing has told it yet", async () => {
    handlers = { ensure: () => ({ url: "stale" }) };
    held = false;
    expect(await refusal(client().ensure({ tenant: "a" }))).toMatchObject({ begun: false });
  });

  test("during which the lease ends has neither its answer nor its error: it may have been carried out", async () => {
    handlers = {
      restart: async () => {
        held = false;
        return { url: "stale" };
      },
    };
    expect(await refusal(client().restart({ tenant: "a" }))).toMatchObject({ begun: true });
    held = true;
    handlers = {
      restart: () => {
        held = false;
        throw rpcError(Code.NotFound, "stale");
      },
    };
    expect(await refusal(client().restart({ tenant: "a" }))).toMatchObject({ begun: true });
  });

  test("of what this version has not is UNIMPLEMENTED, by who leads", async () => {
    const error = await client()
      .reload({ tenant: "a" })
      .catch((e: unknown) => e);
    expect((error as ConnectError).code).toBe(Code.Unimplemented);
  });

  test("an upload at a follower is refused before it is read", async () => {
    leadership.follow();
    const parts = async function* () {
      yield { part: { case: "header" as const, value: { tenant: "a", version: "" } } };
      for (let i = 0; i < 64; i++)
        yield { part: { case: "chunk" as const, value: new Uint8Array(256 * 1024) } };
    };
    expect(await refusal(client().uploadRelease(parts()))).toMatchObject({ begun: false });
  });
});

describe("a stream", () => {
  test("says nothing more once the lease is over, and ends with who leads", async () => {
    handlers = {
      async *watchEndpoints() {
        yield { node: "true" };
        held = false;
        yield { node: "stale" };
      },
    };
    const nodes: string[] = [];
    const reading = (async () => {
      for await (const { node } of client().watchEndpoints({ gateway: "g" })) nodes.push(node);
    })();
    expect(await refusal(reading)).toMatchObject({ begun: true });
    expect(nodes).toEqual(["true"]);
  });

  test("that ends by itself ends in order", async () => {
    handlers = {
      async *watchEndpoints() {
        yield { node: "true" };
      },
    };
    const nodes: string[] = [];
    for await (const { node } of client().watchEndpoints({ gateway: "g" })) nodes.push(node);
    expect(nodes).toEqual(["true"]);
  });
});

test("health: the process serves in any case, the service only where it leads", async () => {
  const check = async (service: string) => (await connection.client(Health).check({ service })).status;
  expect(await check(SchedulerService.typeName)).toBe(Status.SERVING);
  leadership.follow();
  expect(await check(SchedulerService.typeName)).toBe(Status.NOT_SERVING);
  expect(await check("")).toBe(Status.SERVING);
});
