import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { ulid } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import type { TrafficRecord } from "@warren/proto/scheduler";
import fc from "fast-check";
import { Traffic } from "../src/traffic.ts";
import { type House, openHouse, upstream } from "./support/house.ts";

const within = { deadlineMs: 5_000 };

/** As the ledger does: the highest of each run, summed over runs. */
function totals(records: readonly TrafficRecord[], tenant: string): { requests: number; bytesOut: number } {
  const byRun = new Map<string, { requests: number; bytesOut: number }>();
  for (const { report } of records) {
    if (report!.tenant !== tenant) continue;
    const key = `${report!.gateway}/${report!.run}`;
    const before = byRun.get(key) ?? { requests: 0, bytesOut: 0 };
    byRun.set(key, {
      requests: Math.max(before.requests, Number(report!.requests)),
      bytesOut: Math.max(before.bytesOut, Number(report!.bytesOut)),
    });
  }
  const sum = { requests: 0, bytesOut: 0 };
  for (const { requests, bytesOut } of byRun.values()) {
    sum.requests += requests;
    sum.bytesOut += bytesOut;
  }
  return sum;
}

describe("counters", () => {
  const gateway = `g-${ulid()}`;

  test("B2: a batch is the same until it was acknowledged; what came meanwhile is in the next", () => {
    const traffic = new Traffic({ gateway, maxBatch: 10, keep: 10 });
    traffic.reached("a");
    traffic.sent("a", 100);
    const first = traffic.batch(1_000);
    traffic.reached("a");
    traffic.reached("b");
    expect(traffic.batch(2_000)).toBe(first);
    expect(first.map(({ seq, report }) => [seq, report!.requests, report!.bytesOut])).toEqual([
      [1n, 1n, 100n],
    ]);
    traffic.acknowledge();
    const second = traffic.batch(3_000);
    expect(second.map(({ seq, report }) => [seq, report!.tenant, report!.requests])).toEqual([
      [2n, "b", 1n],
      [3n, "a", 2n],
    ]);
    traffic.acknowledge();
    expect(traffic.batch(4_000)).toEqual([]);
  });

  test("rule 8: whatever is counted, told, repeated and forgotten in whatever order, the totals are what was counted", () => {
    const tenants = ["a", "b", "c", "d"];
    const op = fc.oneof(
      fc.record({ kind: fc.constant("reached"), tenant: fc.constantFrom(...tenants) }),
      fc.record({
        kind: fc.constant("sent"),
        tenant: fc.constantFrom(...tenants),
        bytes: fc.nat(1_000),
      }),
      fc.constant({ kind: "told" } as const),
      fc.constant({ kind: "lost" } as const),
    );
    fc.assert(
      fc.property(fc.array(op, { maxLength: 200 }), (ops) => {
        const traffic = new Traffic({ gateway, maxBatch: 2, keep: 1 });
        const truth = new Map(tenants.map((tenant) => [tenant, { requests: 0, bytesOut: 0 }]));
        const journal: TrafficRecord[] = [];
        const tell = (acknowledged: boolean) => {
          const batch = traffic.batch(0);
          journal.push(...batch);
          if (acknowledged) traffic.acknowledge();
          return batch.length;
        };
        for (const one of ops) {
          if (one.kind === "told" || one.kind === "lost") tell(one.kind === "told");
          else if ("bytes" in one) {
            traffic.sent(one.tenant, one.bytes as number);
            truth.get(one.tenant)!.bytesOut += one.bytes as number;
          } else {
            traffic.reached((one as { tenant: string }).tenant);
            truth.get((one as { tenant: string }).tenant)!.requests++;
          }
        }
        while (tell(true) > 0);
        for (const tenant of tenants) expect(totals(journal, tenant)).toEqual(truth.get(tenant)!);
        expect(traffic.size).toBeLessThanOrEqual(1);
        // One number is one record, however often it was sent.
        const bySeq = new Map(journal.map((record) => [record.seq, record]));
        for (const record of journal) expect(bySeq.get(record.seq)).toEqual(record);
        expect([...bySeq.keys()]).toEqual(Array.from({ length: bySeq.size }, (_, i) => BigInt(i + 1)));
      }),
    );
  });
});

describe("a gateway", () => {
  let house: House;
  let shop: ReturnType<typeof upstream>;

  beforeEach(async () => {
    house = await openHouse({ trafficIntervalMs: 20 });
    shop = upstream(
      async (request, server) => {
        const { pathname } = new URL(request.url);
        if (pathname === "/ws")
          return server.upgrade(request) ? undefined : new Response(null, { status: 400 });
        if (pathname === "/none") return new Response(null, { status: 204 });
        if (pathname === "/fail") return new Response("no", { status: 500 });
        return new Response("0123456789");
      },
      {
        message(socket, message) {
          socket.send(message);
        },
      },
    );
    const endpoint = house.scheduler.endpoint("shop", shop.port);
    house.scheduler.onEnsure = async () => house.scheduler.ready(endpoint);
  });

  afterEach(async () => {
    await house[Symbol.asyncDispose]();
    await shop[Symbol.asyncDispose]();
  });

  const told = () => totals(house.scheduler.traffic.flat(), "shop");
  const untilTold = (requests: number, bytesOut: number) =>
    waitUntil(() => told().requests === requests && told().bytesOut === bytesOut, {
      ...within,
      what: `${requests} requests, ${bytesOut} bytes to be told`,
    }).catch((error) => {
      throw new Error(`${error.message}; told: ${JSON.stringify(told())}`);
    });

  test("counts what reached an instance, and the bytes of bodies and messages to clients", async () => {
    for (let i = 0; i < 3; i++) await (await house.ask("shop")).text();
    await house.ask("shop", "/none");
    await house.ask("shop", "/", { method: "HEAD" });
    await (await house.ask("shop", "/fail")).text();
    await untilTold(6, 32);
    const socket = new WebSocket(`ws://127.0.0.1:${house.gateway.port}/ws`, {
      headers: { Host: "shop.localhost" },
    } as unknown as string[]);
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    const echoed = new Promise((resolve) => socket.addEventListener("message", resolve, { once: true }));
    socket.send("hällo"); // 6 bytes
    await echoed;
    await untilTold(7, 38);
    socket.close();
    for (const { report } of house.scheduler.traffic.flat()) expect(report!.gateway).toBe(house.gateway.id);
  });

  test("what was refused before it reached an instance does not count", async () => {
    house.scheduler.onEnsure = async (tenant) => {
      throw rpcError(Code.NotFound, `no tenant ${tenant}`);
    };
    for (let i = 0; i < 3; i++) expect((await house.ask("other")).status).toBe(404);
    await (await house.ask("shop")).text().catch(() => "");
    await house.gateway.stop(0);
    expect(totals(house.scheduler.traffic.flat(), "other")).toEqual({ requests: 0, bytesOut: 0 });
  });

  test("rule 8: a scheduler that refuses, dies and comes back hears of all of it, under the same numbers", async () => {
    const { scheduler } = house;
    const seen: TrafficRecord[] = [];
    let refusals = 0;
    scheduler.onTraffic = (batch) => {
      // It has it, and its answer is lost.
      seen.push(...batch);
      if (++refusals < 4) throw rpcError(Code.Unavailable, "the journal is away");
    };
    for (let i = 0; i < 5; i++) await (await house.ask("shop")).text();
    await waitUntil(() => refusals >= 4, within);
    const port = Number(new URL(scheduler.url).port);
    await scheduler.stop();
    for (let i = 0; i < 5; i++) await (await house.ask("shop")).text();
    await scheduler.start(port);
    await untilTold(10, 100);
    const bySeq = new Map<bigint, TrafficRecord>();
    for (const record of seen) {
      expect(bySeq.get(record.seq) ?? record).toEqual(record);
      bySeq.set(record.seq, record);
    }
    expect([...bySeq.keys()]).toEqual(Array.from({ length: bySeq.size }, (_, i) => BigInt(i + 1)));
  }, 20_000);

  test("rule 8: the last of it is told when the gateway stops", async () => {
    await using slow = await openHouse({ trafficIntervalMs: 60_000 });
    slow.scheduler.onEnsure = async () => slow.scheduler.ready(slow.scheduler.endpoint("shop", shop.port));
    for (let i = 0; i < 4; i++) await (await slow.ask("shop")).text();
    expect(slow.scheduler.traffic).toEqual([]);
    await slow.gateway.stop();
    expect(totals(slow.scheduler.traffic.flat(), "shop")).toEqual({ requests: 4, bytesOut: 40 });
  });
});
