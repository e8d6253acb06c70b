/** Following the leader, on real servers that say who leads. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NotLeaderSchema, Role } from "@warren/proto/common";
import { SchedulerService } from "@warren/proto/scheduler";
import pino from "pino";
import { streaming } from "../src/rpc/client.ts";
import type { Credentials } from "../src/rpc/credentials.ts";
import { Code, ConnectError, detail, detailOf, rpcError } from "../src/rpc/errors.ts";
import { connectLeader, type LeaderConnection, type LeaderOptions } from "../src/rpc/leader.ts";
import { type RpcServer, serveRpc } from "../src/rpc/server.ts";
import { isQuick } from "../src/testing/quick.ts";
import { pause, waitUntil } from "../src/time.ts";
import { openCellSecrets } from "../src/tls/cell.ts";

const log = pino({ level: "silent" });
let directory: string;
let serverCredentials: Credentials;
let client: Credentials;
/** Who leads: a name; what followers say of it is `named`. */
let leader = "";
let named: string | undefined;
let begun = false;
/** Calls by server, in order. */
let asked: string[] = [];
const servers = new Map<string, RpcServer>();
const url = (name: string) => servers.get(name)!.url;
let connection: LeaderConnection | undefined;

const refuse = (name: string): void => {
  asked.push(name);
  if (name === leader) return;
  const leaderUrl = named ?? (servers.has(leader) ? url(leader) : "");
  throw rpcError(Code.Unavailable, `${name} does not lead`, detail(NotLeaderSchema, { leaderUrl, begun }));
};

async function start(name: string): Promise<void> {
  const server = await serveRpc({
    name,
    port: 0,
    credentials: serverCredentials,
    log,
    routes: (router) => {
      router.service(SchedulerService, {
        ensure: () => {
          refuse(name);
          return { url: name };
        },
        restart: () => {
          refuse(name);
          return { url: name };
        },
        getTenant: () => {
          asked.push(name);
          throw rpcError(Code.Unavailable, "back-off");
        },
        explain: async (_request, context) => {
          asked.push(name);
          await pause(60_000, context.signal);
          return {};
        },
        async *watchEndpoints() {
          refuse(name);
          yield { node: name };
          yield { node: name };
          throw rpcError(Code.Unavailable, "the watch broke");
        },
        async *watchEvents(_request, context) {
          asked.push(name);
          await pause(60_000, context.signal);
          yield {};
        },
        async uploadRelease(parts) {
          for await (const _ of parts);
          refuse(name);
          return {};
        },
      });
    },
  });
  servers.set(name, server);
}

function open(names: readonly string[], more: Partial<LeaderOptions> = {}) {
  connection?.close();
  connection = connectLeader({ urls: names.map(url), credentials: client, deadlineMs: 5_000, ...more });
  return connection.client(SchedulerService);
}

/** Takes connections and says nothing, as a process that was stopped. */
function startHung() {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  return { url: `https://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.catch((e: unknown) => e);
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-leader-"));
  const cell = await openCellSecrets(directory, "test");
  serverCredentials = (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials;
  client = (await cell.credentialsFor("client", Role.CLIENT)).credentials;
});

beforeEach(async () => {
  asked = [];
  named = undefined;
  begun = false;
  for (const name of ["a", "b", "c"]) if (!servers.has(name)) await start(name);
  leader = "a";
});

afterAll(async () => {
  connection?.close();
  for (const server of servers.values()) await server.stop(0);
  await rm(directory, { recursive: true });
});

async function kill(name: string): Promise<void> {
  await servers.get(name)!.stop(0);
  servers.delete(name);
}

describe("a follower", () => {
  test("names the leader, who is asked, and remembered; a client that knows only one finds all", async () => {
    const scheduler = open(["b"]);
    expect((await scheduler.ensure({ tenant: "x" })).url).toBe("a");
    expect((await scheduler.restart({ tenant: "x" })).url).toBe("a");
    expect(asked).toEqual(["b", "a", "a"]);
    leader = "c";
    expect((await scheduler.restart({ tenant: "x" })).url).toBe("c");
    expect(asked.slice(3)).toEqual(["a", "c"]);
  });

  test("that knows of no leader is asked again until there is one", async () => {
    const scheduler = open(["a", "b"]);
    leader = "nobody";
    const answer = scheduler.restart({ tenant: "x" });
    await waitUntil(() => asked.length > 4, { deadlineMs: 5_000, what: "both to be asked again" });
    leader = "b";
    expect((await answer).url).toBe("b");
  });

  test("that names the wrong one does not keep the others from being asked", async () => {
    const scheduler = open(["a", "b", "c"]);
    named = url("a");
    leader = "c";
    await kill("a");
    expect((await scheduler.ensure({ tenant: "x" })).url).toBe("c");
  });

  test("no leader for the whole patience: the last answer, with what each said", async () => {
    const scheduler = open(["a", "b"], { patienceMs: 300 });
    leader = "nobody";
    const start = performance.now();
    const error = await failure(scheduler.ensure({ tenant: "x" }));
    expect(performance.now() - start).toBeLessThan(2_000);
    expect(error.code).toBe(Code.Unavailable);
    expect(error.rawMessage).toContain("a does not lead");
    expect(error.rawMessage).toContain("b does not lead");
    expect(detailOf(error, NotLeaderSchema)).toBeTruthy();
  });

  test("the caller's deadline and signal bound it all", async () => {
    const scheduler = open(["a", "b"]);
    leader = "nobody";
    const start = performance.now();
    await failure(scheduler.ensure({ tenant: "x" }, { timeoutMs: 300 }));
    await failure(scheduler.ensure({ tenant: "x" }, { signal: AbortSignal.timeout(300) }));
    expect(performance.now() - start).toBeLessThan(2_000);
  });
});

describe("what is repeated", () => {
  test("nothing that may have been carried out, unless the contract says that it may be twice", async () => {
    const scheduler = open(["b", "a"]);
    begun = true;
    expect((await failure(scheduler.restart({ tenant: "x" }))).code).toBe(Code.Unavailable);
    expect(asked).toEqual(["b"]);
    open(["b", "a"]);
    expect((await scheduler.ensure({ tenant: "x" })).url).toBe("a");
  });

  test("what found nobody listening was not carried out", async () => {
    const scheduler = open(["c", "a"]);
    await kill("c");
    expect((await scheduler.restart({ tenant: "x" })).url).toBe("a");
    expect(asked).toEqual(["a"]);
  });

  test("a leader's refusal is an answer", async () => {
    const scheduler = open(["a", "b"]);
    expect((await failure(scheduler.getTenant({ tenant: "x" }))).rawMessage).toBe("back-off");
    expect(asked).toEqual(["a"]);
  });

  test("with nobody there it fails at once, and names each", async () => {
    const gone = ["https://127.0.0.1:1", "https://127.0.0.1:2"];
    connection?.close();
    connection = connectLeader({ urls: gone, credentials: client });
    const start = performance.now();
    const error = await failure(connection.client(SchedulerService).ensure({ tenant: "x" }));
    expect(performance.now() - start).toBeLessThan(2_000);
    for (const one of gone) expect(error.rawMessage).toContain(one);
  });

  test("a server that has not answered in time is not the first to be asked the next time", async () => {
    const scheduler = open(["a", "b"]);
    expect((await failure(scheduler.explain({ tenant: "x" }, { timeoutMs: 200 }))).code).toBe(
      Code.DeadlineExceeded,
    );
    leader = "b";
    expect((await scheduler.ensure({ tenant: "x" })).url).toBe("b");
    expect(asked).toEqual(["a", "b"]);
  });

  test.skipIf(isQuick)(
    "L2: one that hangs is given no call while a follower goes on naming it, however the call is cut short",
    async () => {
      const child = startHung();
      try {
        const scheduler = open(["b", "c"], { deadlineMs: 4_000 });
        named = child.url;
        leader = "nobody";
        // The first call finds out, by its deadline; from then on a second is the most that anything waits.
        const start = performance.now();
        await failure(scheduler.restart({ tenant: "x" }));
        expect(performance.now() - start).toBeLessThan(6_000);
        setTimeout(() => {
          leader = "c";
          named = undefined;
        }, 1_500);
        const again = performance.now();
        expect((await scheduler.restart({ tenant: "x" })).url).toBe("c");
        expect(performance.now() - again).toBeLessThan(3_800);
      } finally {
        child.stop();
      }
    },
    20_000,
  );

  test("an upload is not, but whoever makes it anew finds the leader", async () => {
    const scheduler = open(["b"]);
    const parts = async function* () {
      yield { part: { case: "header" as const, value: { tenant: "x", version: "" } } };
    };
    expect(detailOf(await failure(scheduler.uploadRelease(parts())), NotLeaderSchema)).toBeTruthy();
    await scheduler.uploadRelease(parts());
    leader = "c";
    await connection!.follow(
      (peer, timeoutMs) => peer.client(SchedulerService).uploadRelease(parts(), { timeoutMs }),
      { deadlineMs: 5_000, idempotent: false },
    );
    expect(asked).toEqual(["b", "a", "a", "c"]);
  });
});

describe("a stream", () => {
  test("finds the leader before its first message; what breaks later is its reader's to take up", async () => {
    const scheduler = open(["c", "b"]);
    const nodes: string[] = [];
    const reading = (async () => {
      for await (const { node } of scheduler.watchEndpoints({ gateway: "g" })) nodes.push(node);
    })();
    expect((await failure(reading)).rawMessage).toBe("the watch broke");
    expect(nodes).toEqual(["a", "a"]);
    expect(asked).toEqual(["c", "a"]);
  });

  test("that its reader gave up as silent is opened at another server the next time", async () => {
    const scheduler = open(["a", "b"]);
    const silent = new AbortController();
    const reading = (async () => {
      for await (const _ of streaming((signal) => scheduler.watchEvents({}, { signal }), silent.signal));
    })();
    await waitUntil(() => asked.length > 0, { deadlineMs: 5_000, what: "the stream to be opened" });
    silent.abort(new ConnectError("silent", Code.DeadlineExceeded));
    await failure(reading);
    expect(connection!.url).toBe(url("b"));
  });
});

test("URLs that are none, or no URL at all, are refused", () => {
  expect(() => connectLeader({ urls: [], credentials: client })).toThrow("no scheduler");
  expect(() => connectLeader({ urls: ["http://a:1"], credentials: client })).toThrow("https");
});
