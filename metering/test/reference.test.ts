/**
 * What `@absolutejs/runtime` bills wrongly, reproduced by running it: the same lives, told the same way, as Warren's agents
 * tell them. In each case the truth is what the processes really did.
 */
import { expect, test } from "bun:test";
import { instanceId, ten, transitionAt, usageAt, used } from "./events.ts";
import { MapLedger } from "./model.ts";

const one = { tenant: "shop", instance: instanceId(1) };
const other = { tenant: "shop", instance: instanceId(2) };
const now = ten + 60_000;

const ready = (who: typeof one, at: number, id?: string) =>
  transitionAt(who, at, "STARTING", "READY", { id });
const exited = (who: typeof one, at: number, wallMs: number) =>
  transitionAt(who, at, "READY", "EXITED", { usage: { wallMs: BigInt(wallMs) } });
const lived = (who: typeof one, at: number, wallMs: number, id?: string) =>
  usageAt(who, at, { wallMs: BigInt(wallMs) }, id);

test("rule 8: restart-and-adopt billed once: 1,000 ms, not 1,800", () => {
  const before = [ready(one, ten, "n1:before:1"), lived(one, ten + 800, 800, "n1:before:2")];
  // The next agent has lost what the first one had told: it tells the whole life anew, in a stream of its own.
  const after = [
    ready(one, ten, "n1:after:1"),
    lived(one, ten + 900, 900, "n1:after:2"),
    exited(one, ten + 1_000, 1_000),
  ];
  const ledger = new MapLedger().count(before, now).count(after, now).count(before, now);
  expect(ledger.total("shop")).toEqual({ ...used({ wallMs: 1_000n }), starts: 1, instances: 1 });
});

test("rule 8: a late observation: 10,050 ms, not 20,000", () => {
  const late = lived(one, ten + 10_000, 10_000);
  const ledger = new MapLedger().count([ready(one, ten), exited(one, ten + 10_050, 10_050), late], now);
  expect(ledger.total("shop")).toEqual({ ...used({ wallMs: 10_050n }), starts: 1, instances: 1 });
});

test("rule 8: two instances of one tenant: 1,230 ms, not 3,270", () => {
  const ledger = new MapLedger().count(
    [
      ready(one, ten),
      ready(other, ten + 10),
      lived(one, ten + 500, 500),
      lived(other, ten + 110, 100),
      lived(one, ten + 900, 900),
      exited(other, ten + 240, 230),
      exited(one, ten + 1_000, 1_000),
    ],
    now,
  );
  expect(ledger.total("shop")).toEqual({ ...used({ wallMs: 1_230n }), starts: 2, instances: 2 });
});

test("rule 8: a life shorter than the observation interval is metered", () => {
  const ledger = new MapLedger().count(
    [
      transitionAt(one, ten, "PENDING", "STARTING"),
      ready(one, ten + 8),
      transitionAt(one, ten + 40, "READY", "EXITED", { usage: { cpuUs: 12_000n, wallMs: 40n } }),
    ],
    now,
  );
  expect(ledger.total("shop")).toEqual({
    ...used({ cpuUs: 12_000n, wallMs: 40n }),
    starts: 1,
    instances: 1,
  });
});

test("rule 8: late by an hour, growth is posted where it was first seen, and nothing twice", () => {
  const minute = 60_000;
  const hour = 60 * minute;
  const cpu = (at: number, cpuUs: bigint) => usageAt(one, at, { cpuUs });
  const ledger = new MapLedger().count(
    [cpu(ten + 50 * minute, 100n), cpu(ten + 70 * minute, 160n), cpu(ten + 55 * minute, 120n)],
    ten + 5 * hour,
  );
  expect(ledger.total("shop", ten).cpuUs).toBe(100n);
  expect(ledger.total("shop", ten + hour).cpuUs).toBe(60n);
  expect(ledger.kinds).toEqual([]);
});
