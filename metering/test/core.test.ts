/** The pure ledger: what a bill says, whatever happens to the events on their way. */
import { describe, expect, test } from "bun:test";
import { InstanceMode } from "@warren/proto/common";
import { nothing } from "../src/core/meters.ts";
import { boundsOf, windowOf } from "../src/core/window.ts";
import { hour, instanceId, nextId, ten, trafficAt, transitionAt, usageAt, used } from "./events.ts";
import { MapLedger } from "./model.ts";

const shop = { tenant: "shop", instance: instanceId(1) };
const now = ten + 5 * hour;
const minute = 60_000;
const { ACTIVE, FROZEN } = InstanceMode;

describe("rule 8: starts and instances", () => {
  test("one that never became ready is an instance and no start, and its use counts", () => {
    const ledger = new MapLedger().count(
      [
        transitionAt(shop, ten, "PENDING", "STARTING"),
        transitionAt(shop, ten + 5, "STARTING", "EXITED", { usage: { cpuUs: 3n } }),
      ],
      now,
    );
    expect(ledger.total("shop")).toMatchObject({ cpuUs: 3n, starts: 0, instances: 1 });
  });

  /** Ready at 10:00, frozen at 10:01, looked at at 10:30, thawed at 11:10, ended at 11:20. */
  const slept = () => [
    transitionAt(shop, ten, "STARTING", "READY"),
    transitionAt(shop, ten + minute, "READY", "READY", {
      modes: [ACTIVE, FROZEN],
      usage: { cpuUs: 9n, wallMs: BigInt(minute) },
    }),
    usageAt(shop, ten + 30 * minute, {
      cpuUs: 9n,
      wallMs: BigInt(30 * minute),
      frozenMs: BigInt(29 * minute),
    }),
    transitionAt(shop, ten + 70 * minute, "READY", "READY", {
      modes: [FROZEN, ACTIVE],
      usage: { cpuUs: 9n, wallMs: BigInt(70 * minute), frozenMs: BigInt(69 * minute) },
    }),
    transitionAt(shop, ten + 80 * minute, "READY", "EXITED", {
      usage: { cpuUs: 20n, wallMs: BigInt(80 * minute), frozenMs: BigInt(69 * minute) },
    }),
  ];
  const bill = used({ cpuUs: 20n, wallMs: BigInt(80 * minute), frozenMs: BigInt(69 * minute) });

  test("freezing and waking is no start, and the frozen time is counted once, in the hours that showed it", () => {
    const ledger = new MapLedger().count(slept(), now);
    expect(ledger.kinds).toEqual([]);
    expect(ledger.total("shop")).toEqual({ ...bill, starts: 1, instances: 1 });
    expect(ledger.total("shop", ten).frozenMs).toBe(BigInt(29 * minute));
    expect(ledger.total("shop", ten + hour)).toMatchObject({
      frozenMs: BigInt(40 * minute),
      starts: 0,
      instances: 1,
    });
  });

  test("told twice, backwards, or not in between: the same bill for a frozen instance", () => {
    const all = slept();
    for (const records of [[...all, ...all], all.toReversed(), [all[0]!, all[4]!], [all[1]!, all[4]!]]) {
      const ledger = new MapLedger().count(records, now);
      expect(ledger.total("shop")).toEqual({ ...bill, starts: 1, instances: 1 });
    }
  });

  test("an instance is seen in every hour that has a record of it, also where nothing grew", () => {
    const idle = (at: number) => usageAt(shop, at, { cpuUs: 5n });
    const ledger = new MapLedger().count([idle(ten), idle(ten + hour), idle(ten + hour)], now);
    expect(ledger.total("shop", ten + hour)).toMatchObject({ cpuUs: 0n, instances: 1 });
    expect(ledger.total("shop").instances).toBe(1);
  });
});

describe("rule 8: what gateways count", () => {
  const gateway = (n: number) => `gw${n}-${instanceId(n)}`;

  test("the highest value of each gateway and run, summed; no instance and no start", () => {
    const ledger = new MapLedger().count(
      [
        usageAt(shop, ten, { cpuUs: 5n, thaws: 2n }),
        trafficAt("shop", ten, { gateway: gateway(1), requests: 10n, bytesOut: 1_000n }),
        trafficAt("shop", ten + minute, { gateway: gateway(1), requests: 30n, bytesOut: 3_000n }),
        trafficAt("shop", ten + minute, { gateway: gateway(1), requests: 20n, bytesOut: 2_000n }),
        trafficAt("shop", ten + hour, { gateway: gateway(1), run: 1, requests: 4n, bytesOut: 40n }),
        trafficAt("shop", ten, { gateway: gateway(2), requests: 500n }),
        trafficAt("blog", ten, { gateway: gateway(2), requests: 7n }),
      ],
      now,
    );
    expect(ledger.kinds).toEqual([]);
    expect(ledger.total("shop")).toEqual({
      ...used({ cpuUs: 5n, thaws: 2n, requests: 534n, bytesOut: 3_040n }),
      starts: 0,
      instances: 1,
    });
    expect(ledger.total("shop", ten + hour)).toMatchObject({ requests: 4n, instances: 0 });
    expect(ledger.total("blog")).toMatchObject({ requests: 7n, instances: 0 });
  });

  test("an absurd counter, gateway or tenant is set aside", () => {
    const ledger = new MapLedger().count(
      [
        trafficAt("shop", ten, { gateway: gateway(1), requests: 2n ** 63n }),
        trafficAt("shop", ten, { gateway: "gw1", requests: 1n }),
        trafficAt("shop", ten, { gateway: `a/b-${instanceId(1)}`, requests: 1n }),
        { ...trafficAt("shop", ten, { gateway: gateway(1) }), data: new TextEncoder().encode("{}") },
      ],
      now,
    );
    expect(ledger.kinds).toEqual(["usage-implausible", "bad-gateway", "bad-gateway", "bad-gateway"]);
    expect(ledger.total("shop").requests).toBe(0n);
  });
});

describe("rule 8: absurd events are set aside and counted by kind, and skew nothing", () => {
  const sane = [usageAt(shop, ten, { cpuUs: 100n, memoryByteSeconds: 2n ** 60n })];

  test.each([
    ["a counter that wrapped below zero", { cpuUs: 2n ** 64n - 5n }],
    ["a jump that no machine can do", { cpuUs: 10n ** 18n }],
    ["a life longer than since its placement", { wallMs: BigInt(400 * 24 * hour) }],
    ["more frozen than alive can be", { frozenMs: 2n ** 63n }],
    ["all memory there ever was", { memoryByteSeconds: 2n ** 63n }],
  ])("%s", (_, usage) => {
    const ledger = new MapLedger().count([...sane, usageAt(shop, ten, { wallMs: 1n, ...usage })], now);
    expect(ledger.kinds).toEqual(["usage-implausible"]);
    expect(ledger.total("shop")).toEqual({
      ...used({ cpuUs: 100n, memoryByteSeconds: 2n ** 60n }),
      starts: 0,
      instances: 1,
    });
  });

  test("the next sane observation brings what an absurd one withheld", () => {
    const ledger = new MapLedger().count(
      [...sane, usageAt(shop, ten, { cpuUs: 2n ** 63n }), usageAt(shop, ten + minute, { cpuUs: 150n })],
      now,
    );
    expect(ledger.total("shop").cpuUs).toBe(150n);
  });

  test.each([
    ["time-future", now + 48 * hour],
    ["time-future", Date.UTC(9999, 0)],
    ["time-past", 0],
    ["time-past", Date.UTC(2019, 11, 31)],
    ["time-past", ten - 25 * hour], // before it was placed
  ])(
    "a clock that is wrong (%s): what was used counts once, in the hour in which the journal took it",
    (kind, time) => {
      const event = usageAt(shop, time, { cpuUs: 100n });
      const ledger = new MapLedger().count([event], now).count([event], now + 2 * hour);
      expect(ledger.kinds).toEqual([kind]);
      ledger.count([{ ...event, id: nextId() }], now + 2 * hour);
      expect(ledger.kinds).toEqual([kind, kind]);
      expect(ledger.total("shop", now)).toMatchObject({ cpuUs: 100n, instances: 1 });
      expect(ledger.total("shop", now + 2 * hour)).toMatchObject({ ...nothing, instances: 0 });
    },
  );

  test("a clock that is up to a day ahead is believed", () => {
    const ledger = new MapLedger().count([usageAt(shop, now + 23 * hour, { cpuUs: 1n })], now);
    expect(ledger.kinds).toEqual([]);
    expect(ledger.total("shop", now + 23 * hour).cpuUs).toBe(1n);
  });

  test("a journal's clock far behind does not throw away what was used", () => {
    const ledger = new MapLedger().count(sane, Date.UTC(1970, 0, 1, 3));
    expect(ledger.kinds).toEqual(["time-future"]);
    expect(ledger.total("shop").cpuUs).toBe(100n);
  });

  test("an instance does not change its tenant", () => {
    const stolen = usageAt({ ...shop, tenant: "rich" }, ten, { cpuUs: 999n });
    const ledger = new MapLedger().count([...sane, stolen], now);
    expect(ledger.kinds).toEqual(["tenant-changed"]);
    expect(ledger.total("rich").instances).toBe(0);
  });

  test.each([
    ["bad-instance", usageAt({ tenant: "shop", instance: "../x" }, ten, {})],
    ["bad-instance", usageAt({ tenant: "", instance: shop.instance }, ten, {})],
    ["unreadable", { ...usageAt(shop, ten, {}), data: new Uint8Array([0xff, 0x00]) }],
    ["unreadable", { ...usageAt(shop, ten, {}), data: new TextEncoder().encode('{"usage":{"cpuUs":"-1"}}') }],
    [
      "unreadable",
      { ...usageAt(shop, ten, {}), data: new TextEncoder().encode('{"usage":{"cpuUs":"NaN"}}') },
    ],
    ["unreadable", { ...usageAt(shop, ten, {}), headers: {} }],
    ["unreadable", { ...usageAt(shop, ten, {}), headers: { "ce-type": "dev.warren.constructor" } }],
  ])("%s", (kind, record) => {
    const ledger = new MapLedger().count([...sane, record], now);
    expect(ledger.kinds).toEqual([kind]);
    expect(ledger.total("shop").cpuUs).toBe(100n);
  });
});

describe("windows are whole UTC hours", () => {
  test("the start is cut to its hour; of an hour that the end falls into, all counts", () => {
    const h = ten / hour;
    expect(windowOf(ten + 15 * minute, ten + 20 * minute)).toEqual({ fromHour: h, untilHour: h + 1 });
    expect(windowOf(ten, ten + hour)).toEqual({ fromHour: h, untilHour: h + 1 });
    const { fromHour, untilHour } = windowOf(undefined, undefined);
    expect(fromHour).toBeLessThan(0);
    expect(untilHour).toBeGreaterThan(h * 1_000);
  });

  test("months are those of the calendar", () => {
    const all = windowOf(undefined, undefined);
    const february2028 = (2028 - 1970) * 12 + 1;
    expect(boundsOf("month", february2028, all)).toEqual({
      start: Date.UTC(2028, 1),
      end: Date.UTC(2028, 2),
    });
    expect(boundsOf("month", february2028, windowOf(Date.UTC(2028, 1, 3), Date.UTC(2028, 1, 4)))).toEqual({
      start: Date.UTC(2028, 1, 3),
      end: Date.UTC(2028, 1, 4),
    });
  });

  test("a day is shown no wider than what was asked for", () => {
    const midnight = Date.UTC(2026, 5, 1);
    const day = midnight / hour / 24;
    expect(boundsOf("day", day, windowOf(undefined, undefined))).toEqual({
      start: midnight,
      end: midnight + 24 * hour,
    });
    expect(boundsOf("day", day, windowOf(ten, ten + hour))).toEqual({ start: ten, end: ten + hour });
  });
});
