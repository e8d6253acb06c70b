/** Rule 1 on real processes. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@warren/client";
import { pause } from "@warren/common/time";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { sampled } from "../src/live.ts";

let cell: TestCell;
let directory: string;
const tenants = ["a", "b", "c", "d", "e", "f"];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-cap-"));
  cell = await startCell({ nodes: 3, maxConcurrent: 2 });
  const app = await writeApp(directory, "app", "slow");
  for (const tenant of tenants) {
    const release = await cell.warren.upload(tenant, app);
    await cell.warren.apply({ key: tenant, source: { case: "release", value: release.digest } });
  }
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

test("rule 1: cap 2, six ensures of six tenants at once: never more than two live processes at any sample", async () => {
  const calls = tenants.map((tenant) =>
    cell.warren.scheduler.ensure({ tenant }, { timeoutMs: 20_000 }).then(
      () => "ensured",
      (error: unknown) => Code[ConnectError.from(error).code],
    ),
  );
  const { most, samples, outcome } = await sampled(cell.state, Promise.all(calls));
  expect(samples).toBeGreaterThan(20);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(2);
  expect(outcome.every((said) => said === "ensured" || said === "ResourceExhausted")).toBe(true);
  expect(outcome).toContain("ensured");
}, 40_000);

test("rules 3 and 4: when both places are busy the caller is refused by its deadline, and nobody is cut", async () => {
  const busy = ["a", "b"].map((tenant) => cell.get(tenant, "/?ms=4000"));
  const inUse = async () => (await cell.ready()).filter(({ inFlight }) => inFlight > 0).length === 2;
  while (!(await inUse())) await pause(50);
  const begun = performance.now();
  const error = ConnectError.from(
    await cell.warren.scheduler.ensure({ tenant: "c" }, { timeoutMs: 1_500 }).then(
      () => new Error("it was granted"),
      (e: unknown) => e,
    ),
  );
  expect(error.code).toBe(Code.ResourceExhausted);
  expect(error.rawMessage).toContain("the cap is reached: 2 instances are live of 2 allowed");
  expect(performance.now() - begun).toBeLessThan(1_600);
  for (const response of await Promise.all(busy))
    expect([response.status, await response.text()]).toEqual([200, "slept 4000"]);
  expect((await cell.get("c")).status).toBe(200);
}, 40_000);

test("rule 4: a burst on one cold tenant makes one start", async () => {
  await cell.warren.scheduler.stop({ tenant: "d" });
  const before = (await cell.warren.scheduler.getStats({})).counts.starts ?? 0n;
  const answers = await Promise.all(Array.from({ length: 50 }, () => cell.get("d")));
  expect(answers.every(({ status }) => status === 200)).toBe(true);
  expect(((await cell.warren.scheduler.getStats({})).counts.starts ?? 0n) - before).toBe(1n);
}, 40_000);

test("rule 1: 200 ensures of 200 tenants at once on three nodes, 20 places: all are answered, never more than 20 live", async () => {
  await using many = await startCell({ nodes: 3, maxConcurrent: 20, minResidence: "100ms" });
  const app = await writeApp(directory, "many", "slow");
  const keys = Array.from({ length: 200 }, (_, i) => `t${i}`);
  const { digest } = await many.warren.upload(keys[0]!, app);
  for (const key of keys) await many.warren.apply({ key, source: { case: "release", value: digest } });
  const calls = keys.map((tenant) =>
    many.warren.scheduler.ensure({ tenant }, { timeoutMs: 120_000 }).then(
      () => "ensured",
      (error: unknown) => ConnectError.from(error).message,
    ),
  );
  const { most, samples, outcome } = await sampled(many.state, Promise.all(calls));
  expect(outcome.filter((said) => said !== "ensured")).toEqual([]);
  expect(samples).toBeGreaterThan(20);
  expect(most).toBeGreaterThan(10);
  expect(most).toBeLessThanOrEqual(20);
  const { counts } = await many.warren.scheduler.getStats({});
  expect(counts.placements).toBe(200n);
  expect(counts.evictions).toBeGreaterThanOrEqual(180n);
  await many.stop();
  expect(many.left()).toEqual([]);
}, 180_000);
