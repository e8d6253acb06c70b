import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createLogger } from "@warren/common/log";
import { connectRpc } from "@warren/common/rpc/client";
import { isQuick } from "@warren/common/testing/quick";
import { waitUntil } from "@warren/common/time";
import { InstanceMode } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import { startGateway } from "../src/index.ts";
import { type House, openHouse, testCredentials, upstream } from "./support/house.ts";
import { rawClient } from "./support/raw.ts";

const within = { deadlineMs: 5_000 };
const silent = createLogger({ process: "test", level: "silent" });
let house: House;
let shop: ReturnType<typeof upstream>;
let gate: PromiseWithResolvers<void>;

beforeEach(async () => {
  gate = Promise.withResolvers<void>();
  house = await openHouse();
  shop = upstream(async (request, server) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/ws") return server.upgrade(request) ? undefined : new Response(null, { status: 400 });
    if (pathname === "/slow") await gate.promise;
    return new Response(`hello ${pathname}`);
  });
});

afterEach(async () => {
  gate.resolve();
  await house[Symbol.asyncDispose]();
  await shop[Symbol.asyncDispose]();
});

/** Publishes the shop and waits until the gateway routes to it. */
async function warm() {
  const endpoint = house.scheduler.publish("shop", shop.port);
  await waitUntil(async () => (await house.ask("shop")).ok, within);
  return endpoint.instance!.id;
}

/** A request that stays in flight until the gate opens. */
async function slow(): Promise<{ answer: Promise<string> }> {
  const answer = house.ask("shop", "/slow").then((response) => response.text());
  await waitUntil(() => house.gateway.stats().inFlight === 1, within);
  return { answer };
}

describe("the scheduler asks for quiet", () => {
  test("rule 3: with nothing in flight the gateway seals, and the next request waits for an Ensure", async () => {
    const { scheduler } = house;
    const id = await warm();
    const quiet = scheduler.publish("shop", shop.port, { id, mode: InstanceMode.QUIESCING });
    await waitUntil(() => scheduler.lastTouch(id)?.sealed, within);
    expect(scheduler.lastTouch(id)).toMatchObject({ inFlight: 0, seen: quiet.version });
    const cold = scheduler.ensures.length;
    const awake = Promise.withResolvers<void>();
    scheduler.onEnsure = async () => {
      await awake.promise;
      return scheduler.ready(scheduler.endpoint("shop", shop.port, { id }));
    };
    const answer = house.ask("shop", "/next").then((response) => response.text());
    await waitUntil(() => house.gateway.stats().held === 1, within);
    awake.resolve();
    expect(await answer).toBe("hello /next");
    expect(scheduler.ensures.length).toBe(cold + 1);
    await waitUntil(() => scheduler.lastTouch(id)?.sealed === false, within);
  });

  test("rule 3: with a request in flight the gateway says so at once, and goes on", async () => {
    const { scheduler } = house;
    const id = await warm();
    const cold = scheduler.ensures.length;
    const { answer } = await slow();
    const quiet = scheduler.publish("shop", shop.port, { id, mode: InstanceMode.QUIESCING });
    await waitUntil(() => scheduler.lastTouch(id)?.seen?.n === quiet.version!.n, within);
    expect(scheduler.lastTouch(id)).toMatchObject({ inFlight: 1, sealed: false });
    expect(await (await house.ask("shop", "/more")).text()).toBe("hello /more");
    expect(scheduler.ensures.length).toBe(cold);
    gate.resolve();
    expect(await answer).toBe("hello /slow");
  });

  test("withdrawn: what is in flight finishes, then it is confirmed; nothing new goes there", async () => {
    const { scheduler } = house;
    const id = await warm();
    const { answer } = await slow();
    scheduler.withdraw(id);
    await waitUntil(async () => (await house.ask("shop")).status === 404, within);
    await waitUntil(() => scheduler.lastTouch(id)?.inFlight === 1, within);
    expect(scheduler.lastTouch(id)?.sealed).toBe(false);
    gate.resolve();
    expect(await answer).toBe("hello /slow");
    await waitUntil(() => scheduler.lastTouch(id)?.sealed, within);
    expect(scheduler.lastTouch(id)).toMatchObject({ inFlight: 0 });
  });

  test("rule 3: an open WebSocket keeps an instance in flight", async () => {
    const { scheduler } = house;
    const id = await warm();
    const socket = new WebSocket(`ws://127.0.0.1:${house.gateway.port}/ws`, {
      headers: { Host: "shop.localhost" },
    } as unknown as string[]);
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    scheduler.publish("shop", shop.port, { id, mode: InstanceMode.QUIESCING });
    await waitUntil(() => scheduler.lastTouch(id)?.inFlight === 1, within);
    socket.close();
    await waitUntil(() => scheduler.lastTouch(id)?.inFlight === 0, within);
  });
});

describe("the scheduler goes away", () => {
  test("rule 7: warm tenants keep answering, cold ones hear why not; after its return everything is told again", async () => {
    const { scheduler, gateway } = house;
    const id = await warm();
    const port = Number(new URL(scheduler.url).port);
    await scheduler.stop();
    await waitUntil(() => !gateway.stats().watching, within);
    for (let i = 0; i < 20; i++) expect((await house.ask("shop")).status).toBe(200);
    const cold = await house.ask("cold");
    expect(cold.status).toBe(503);
    expect(cold.headers.get("retry-after")).toBe("1");
    expect(await cold.json()).toMatchObject({ error: "scheduler-unreachable", tenant: "cold" });
    const before = scheduler.touched.length;
    scheduler.epoch = 2n;
    // Another process in its place, which knows no endpoints yet.
    await scheduler.start(port);
    await waitUntil(() => gateway.stats().watching, { deadlineMs: 10_000 });
    await waitUntil(() => scheduler.touched.length > before, within);
    expect(scheduler.lastTouch(id)).toMatchObject({ inFlight: 0, sealed: false });
    expect((await house.ask("shop")).status).toBe(200);
  }, 20_000);

  test("a cold tenant's requests wait for a scheduler that is started again, and are answered once it is", async () => {
    await using patient = await openHouse({ absenceMs: 10_000, holdDeadlineMs: 15_000 });
    await using tenant = upstream(() => new Response("fresh"));
    const { scheduler } = patient;
    const fresh = scheduler.endpoint("shop", tenant.port);
    scheduler.onEnsure = async () => scheduler.ready(fresh);
    const port = Number(new URL(scheduler.url).port);
    await scheduler.stop();
    const held = Array.from({ length: 5 }, () => patient.ask("shop"));
    await waitUntil(() => patient.gateway.stats().held === 5, within);
    await scheduler.start(port);
    for (const answer of await Promise.all(held)) expect(answer.status).toBe(200);
  }, 20_000);

  test("a gateway starts without a scheduler, and says so", async () => {
    const { gateway } = await testCredentials();
    await house.scheduler.stop();
    await using alone = await startGateway({
      name: "alone",
      absenceMs: 300,
      schedulerUrls: [house.scheduler.url],
      credentials: gateway,
      port: 0,
      adminPort: null,
      log: silent,
    });
    const answer = await fetch(`${alone.url}/shop/`);
    expect([answer.status, ((await answer.json()) as { error: string }).error]).toEqual([
      503,
      "scheduler-unreachable",
    ]);
  });
});

describe("connections", () => {
  test.skipIf(isQuick)(
    "rule 9: an idle one is closed, a quiet stream is not",
    async () => {
      await using short = await openHouse({ idleConnectionMs: 1_000 });
      short.scheduler.publish("shop", shop.port);
      await waitUntil(async () => (await short.ask("shop")).ok, within);
      using quiet = await rawClient(short.gateway.port, "GET /slow HTTP/1.1\nHost: shop.localhost\n\n");
      using idle = await rawClient(short.gateway.port, "GET /x HTTP/1.1\nHost: shop.localhost\n\n");
      using refused = await rawClient(short.gateway.port, "GET /x HTTP/1.1\nHost: elsewhere\n\n");
      await idle.until("hello /x");
      await waitUntil(() => idle.closed && refused.closed, { deadlineMs: 10_000 });
      expect(quiet.closed).toBe(false);
      gate.resolve();
      await quiet.until("hello /slow");
    },
    15_000,
  );
});

describe("start and stop", () => {
  test("a port that is taken: one clear error, and nothing left behind", async () => {
    const { gateway } = await testCredentials();
    const start = startGateway({
      name: "second",
      schedulerUrls: [house.scheduler.url],
      credentials: gateway,
      port: house.gateway.port,
      adminPort: null,
      log: silent,
    });
    expect(start).rejects.toThrow(
      `port ${house.gateway.port} on 127.0.0.1 is taken by another process: stop it, or`,
    );
    await start.catch(() => {});
    expect(house.scheduler.watches).toBe(1);
  });

  test("an option that cannot be is named", async () => {
    const { gateway: credentials } = await testCredentials();
    const base = { log: silent, name: "x", schedulerUrls: ["https://127.0.0.1:1"], credentials };
    expect(startGateway({ ...base, domain: "no domain" })).rejects.toThrow("domain:");
    expect(startGateway({ ...base, maxHeld: 0 })).rejects.toThrow("maxHeld:");
    expect(startGateway({ ...base, schedulerUrls: ["http://127.0.0.1:1"], port: 0 })).rejects.toThrow(
      "https://",
    );
  });

  test("stop lets what is in flight finish, tells WebSockets, and takes nothing new", async () => {
    const { gateway, scheduler } = house;
    const id = await warm();
    const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}/ws`, {
      headers: { Host: "shop.localhost" },
    } as unknown as string[]);
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    const closed = new Promise<number>((resolve) =>
      socket.addEventListener("close", ({ code }) => resolve(code)),
    );
    const answer = house.ask("shop", "/slow").then((response) => response.text());
    await waitUntil(() => gateway.stats().inFlight === 2, within);
    const stopped = gateway.stop(5_000);
    expect(await closed).toBe(1001);
    await waitUntil(() => gateway.stats().inFlight === 1, within);
    gate.resolve();
    expect(await answer).toBe("hello /slow");
    await stopped;
    expect(house.ask("shop")).rejects.toThrow();
    expect(scheduler.lastTouch(id)).toMatchObject({ inFlight: 0 });
    await waitUntil(() => scheduler.watchers === 0, within);
  });

  test("rule 4: stop cuts at its deadline what does not finish", async () => {
    await warm();
    using client = await rawClient(house.gateway.port, "GET /slow HTTP/1.1\nHost: shop.localhost\n\n");
    await waitUntil(() => house.gateway.stats().inFlight === 1, within);
    await house.gateway.stop(50);
    await waitUntil(() => client.closed, within);
  });

  test("rule 10: health for everybody, metrics for those with a credential", async () => {
    const credentials = await testCredentials();
    await using gateway = await startGateway({
      name: "admin",
      schedulerUrls: [house.scheduler.url],
      credentials: credentials.gateway,
      port: 0,
      adminPort: 0,
      log: silent,
    });
    const rpc = connectRpc({ url: gateway.adminUrl!, credentials: { ca: credentials.gateway.ca } });
    expect((await rpc.client(Health).check({})).status).toBe(1);
    rpc.close();
    await fetch(`${gateway.url}/`);
    const metrics = `${gateway.adminUrl}/metrics`;
    const { ca, token } = credentials.gateway;
    expect((await fetch(metrics, { tls: { ca } })).status).toBe(401);
    const answer = await fetch(metrics, { tls: { ca }, headers: { Authorization: `Bearer ${token}` } });
    const text = await answer.text();
    expect(text).toContain('warren_gateway_requests_total{class="4xx"} 1');
    expect(text).toContain('warren_gateway_refusals_total{reason="no-tenant-named"} 1');
    expect(text).toContain("warren_gateway_wake_seconds_bucket");
  });
});
