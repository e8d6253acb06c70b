import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { Code, detail, rpcError } from "@warren/common/rpc/errors";
import { toDuration, waitUntil } from "@warren/common/time";
import {
  CapReachedSchema,
  ExitReason,
  NoNodeSchema,
  RetryDelaySchema,
  StartFailedSchema,
} from "@warren/proto/common";
import { deadPort, type House, openHouse, upstream } from "./support/house.ts";

const within = { deadlineMs: 5_000 };
const stack: AsyncDisposable[] = [];
let house: House;

function hello(text = "hello"): ReturnType<typeof upstream> {
  const made = upstream(async (request) => new Response(`${text} ${await request.text()}`));
  stack.push(made);
  return made;
}

/** A server that takes a request and cuts the connection. */
async function cutter(): Promise<{ port: number; requests: () => number }> {
  let requests = 0;
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      requests++;
      socket.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stack.push({ [Symbol.asyncDispose]: async () => void server.close() });
  return { port: (server.address() as { port: number }).port, requests: () => requests };
}

beforeEach(async () => {
  house = await openHouse({ maxHeldPerTenant: 100, maxHeld: 150 });
  stack.push(house);
});

afterEach(async () => {
  for (const one of stack.splice(0).toReversed()) await one[Symbol.asyncDispose]();
});

describe("a cold tenant", () => {
  test("rule 4: a burst of 100 makes one Ensure, and everyone is answered", async () => {
    const { scheduler } = house;
    const started = Promise.withResolvers<void>();
    const endpoint = scheduler.endpoint("shop", hello().port);
    scheduler.onEnsure = async () => {
      await started.promise;
      return scheduler.ready(endpoint);
    };
    const answers = Array.from({ length: 100 }, () => house.ask("shop").then((r) => r.text()));
    await waitUntil(() => house.gateway.stats().held === 100, within);
    started.resolve();
    expect(new Set(await Promise.all(answers))).toEqual(new Set(["hello "]));
    expect(scheduler.ensures).toEqual(["shop"]);
    // Warm now: the hot path makes no RPC.
    await Promise.all(Array.from({ length: 20 }, () => house.ask("shop").then((r) => r.text())));
    expect(scheduler.ensures).toEqual(["shop"]);
  });

  test("rule 9: more than may wait are refused at once, per tenant and in all", async () => {
    const { scheduler } = house;
    const over = Promise.withResolvers<void>();
    scheduler.onEnsure = async () => {
      await over.promise;
      throw rpcError(Code.NotFound, "none");
    };
    const held = Array.from({ length: 100 }, () => house.ask("shop"));
    await waitUntil(() => house.gateway.stats().held === 100, within);
    const refused = await house.ask("shop");
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await refused.json()).toMatchObject({ error: "too-many-waiting", tenant: "shop" });
    held.push(...Array.from({ length: 50 }, (_, i) => house.ask(`t${i}`)));
    await waitUntil(() => house.gateway.stats().held === 150, within);
    expect((await house.ask("another")).status).toBe(503);
    over.resolve();
    for (const answer of await Promise.all(held)) expect(answer.status).toBe(404);
    expect(house.gateway.stats().held).toBe(0);
  });

  test("a held client that goes away is dropped, and the last takes the Ensure with it", async () => {
    let cancelled = false;
    house.scheduler.onEnsure = (_tenant, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          cancelled = true;
          reject(rpcError(Code.Canceled, "detached"));
        });
      });
    const aborts = [new AbortController(), new AbortController()];
    const answers = aborts.map(({ signal }) => house.ask("shop", "/", { signal }).catch(() => "left"));
    // Held at once; the Ensure may yet be on its way, and one that never arrived cannot be seen to be taken back.
    await waitUntil(() => house.gateway.stats().held === 2 && house.scheduler.ensures.length === 1, within);
    aborts[0]!.abort();
    await waitUntil(() => house.gateway.stats().held === 1, within);
    expect(cancelled).toBe(false);
    aborts[1]!.abort();
    await waitUntil(() => cancelled && house.gateway.stats().held === 0, within);
    expect(await Promise.all(answers)).toEqual(["left", "left"]);
  });

  test("rule 4: one that is not ready in time is answered 504", async () => {
    await using short = await openHouse({ holdDeadlineMs: 100 });
    short.scheduler.onEnsure = (_tenant, signal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("late"))));
    const answer = await short.ask("shop");
    expect([answer.status, ((await answer.json()) as { error: string }).error]).toEqual([
      504,
      "not-ready-in-time",
    ]);
  });

  test("errors keep their meaning, and a tenant's output stays inside", async () => {
    const exit = {
      reason: ExitReason.CRASHED,
      code: 3,
      lastOutput: ["SECRET=1"],
      message: "SECRET=2",
      hint: "do this",
    };
    const cases: [ReturnType<typeof rpcError>, number, string, string | null][] = [
      [rpcError(Code.NotFound, "x"), 404, "no-such-tenant", null],
      [
        rpcError(Code.ResourceExhausted, "x", detail(CapReachedSchema, { maxConcurrent: 2 })),
        503,
        "at-capacity",
        "1",
      ],
      [
        rpcError(Code.Unavailable, "x", detail(RetryDelaySchema, { delay: toDuration(4_200) })),
        503,
        "backing-off",
        "5",
      ],
      [
        rpcError(Code.FailedPrecondition, "SECRET", detail(StartFailedSchema, { exit })),
        502,
        "start-failed",
        null,
      ],
      [rpcError(Code.FailedPrecondition, "x", detail(NoNodeSchema, {})), 503, "no-node", "5"],
      [rpcError(Code.DeadlineExceeded, "x"), 504, "not-ready-in-time", "1"],
      [rpcError(Code.Internal, "SECRET"), 502, "scheduler-failed", "1"],
    ];
    for (const [error, status, name, retryAfter] of cases) {
      house.scheduler.onEnsure = async () => {
        throw error;
      };
      const answer = await house.ask("shop");
      const text = await answer.text();
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([status, retryAfter]);
      expect(answer.headers.get("content-type")).toStartWith("application/json");
      const body = JSON.parse(text) as { error: string; requestId: string };
      expect(body.error).toBe(name);
      expect(body.requestId).toBe(answer.headers.get("x-request-id")!);
      expect(text).not.toContain("SECRET");
      if (name === "start-failed") expect(text).toContain("crashed (exit code 3); do this");
    }
    const head = await house.ask("shop", "/", { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([502, ""]);
  });

  test("what names no tenant asks no scheduler", async () => {
    const { port } = house.gateway;
    const cases: [string, number][] = [
      ["other.example", 404],
      ["localhost", 404],
      ["a.b.localhost", 400],
      ["-x.localhost", 400],
    ];
    for (const [host, status] of cases) {
      expect((await fetch(`http://127.0.0.1:${port}/`, { headers: { Host: host } })).status).toBe(status);
    }
    expect(house.scheduler.ensures).toEqual([]);
  });
});

describe("an instance that does not take a request", () => {
  test("refused connection: Ensure again, and the body goes to the new one whole", async () => {
    const { scheduler } = house;
    const gone = scheduler.publish("shop", await deadPort());
    const fresh = scheduler.endpoint("shop", hello("fresh").port);
    await waitUntil(() => scheduler.watchers === 1, within);
    let asked = 0;
    // At first the scheduler does not know either.
    scheduler.onEnsure = async () => scheduler.ready(++asked === 1 ? gone : fresh);
    const answer = await house.ask("shop", "/", { method: "POST", body: "precious" });
    expect([answer.status, await answer.text()]).toEqual([200, "fresh precious"]);
    expect(asked).toBe(2);
  });

  test("refused for good: 502 after a few tries", async () => {
    const { scheduler } = house;
    const gone = scheduler.endpoint("shop", await deadPort());
    scheduler.onEnsure = async () => scheduler.ready(gone);
    const answer = await house.ask("shop");
    expect([answer.status, ((await answer.json()) as { error: string }).error]).toEqual([502, "bad-gateway"]);
    expect(scheduler.ensures.length).toBe(4);
  });

  test("a request that was sent is not repeated, unless it is safe", async () => {
    const { scheduler } = house;
    const broken = await cutter();
    const first = scheduler.endpoint("shop", broken.port);
    const second = scheduler.endpoint("shop", hello("second").port);
    scheduler.onEnsure = async () => scheduler.ready(first);
    const post = await house.ask("shop", "/", { method: "POST", body: "pay" });
    expect(post.status).toBe(502);
    expect(((await post.json()) as { message: string }).message).toContain("was not repeated");
    const remove = await house.ask("shop", "/", { method: "DELETE" });
    expect(remove.status).toBe(502);
    expect(broken.requests()).toBe(2);
    scheduler.onEnsure = async () => scheduler.ready(second);
    expect(await (await house.ask("shop")).text()).toBe("second ");
  });

  test("a GET that was cut off is asked once more of the same instance, never of the next one", async () => {
    const { scheduler } = house;
    const broken = await cutter();
    const answers = [
      scheduler.endpoint("shop", broken.port),
      scheduler.endpoint("shop", hello("second").port),
    ];
    scheduler.onEnsure = async () => scheduler.ready(answers.shift()!);
    const answer = await house.ask("shop");
    expect(answer.status).toBe(502);
    expect(((await answer.json()) as { message: string }).message).toContain("broke off before it answered");
    expect(broken.requests()).toBe(2);
    expect(await (await house.ask("shop")).text()).toBe("second ");
  });

  test("a GET that kills an instance it had served before is not given to the next one", async () => {
    const { scheduler } = house;
    let asked = 0;
    const mortal = await mortalTenant();
    const first = scheduler.endpoint("shop", mortal.port);
    const second = scheduler.endpoint("shop", hello("second").port);
    scheduler.onEnsure = async () => scheduler.ready(asked++ === 0 ? first : second);
    // The connection goes back to the pool, where Bun would mend it behind our back.
    for (let i = 0; i < 3; i++) expect(await (await house.ask("shop")).text()).toBe("alive");
    const crash = await house.ask("shop", "/crash");
    expect(crash.status).toBe(502);
    expect(asked).toBe(1);
    expect(await (await house.ask("shop")).text()).toBe("second ");
    await mortal.exited;
  });

  test("after a GET that killed its instance, the next GET goes to the next instance, though the scheduler names the dead one first", async () => {
    const { scheduler } = house;
    const mortal = await mortalTenant();
    const first = scheduler.endpoint("shop", mortal.port);
    const second = scheduler.endpoint("shop", hello("second").port);
    let asked = 0;
    scheduler.onEnsure = async () => scheduler.ready(asked++ < 2 ? first : second);
    for (let i = 0; i < 3; i++) expect(await (await house.ask("shop")).text()).toBe("alive");
    expect((await house.ask("shop", "/crash")).status).toBe(502);
    const answer = await house.ask("shop");
    expect([answer.status, await answer.text()]).toEqual([200, "second "]);
    expect(asked).toBe(3);
    await mortal.exited;
  });
});

test("who asks for a tenant that may be started again soon is held until then", async () => {
  const { scheduler } = house;
  const endpoint = scheduler.endpoint("shop", hello("again").port);
  const delay = toDuration(150);
  let asked = 0;
  scheduler.onEnsure = async () => {
    if (asked++ === 0) throw rpcError(Code.Unavailable, "x", detail(RetryDelaySchema, { delay }));
    return scheduler.ready(endpoint);
  };
  const answer = await house.ask("shop");
  expect([answer.status, await answer.text()]).toEqual([200, "again "]);
  expect(asked).toBe(2);
});

/** A process that serves, and dies of a request for /crash. */
async function mortalTenant(): Promise<{ readonly port: number; readonly exited: Promise<number> }> {
  const source = `const s = Bun.serve({ port: 0, hostname: "127.0.0.1", routes: {
    "/": () => new Response("alive"), "/crash": () => process.exit(1) } }); console.log(s.port)`;
  const child = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe" });
  const { value } = await child.stdout.getReader().read();
  return { port: Number(new TextDecoder().decode(value)), exited: child.exited };
}
