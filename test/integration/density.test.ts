/**
 * Rule 11 on a real cluster: what is idle is not stopped while there is memory and a place for it, and a tenant that takes
 * every core keeps nobody from starting.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seeded } from "@warren/common/testing/seeded";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";

const minute = 60_000;
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
const random = seeded(seed);
/** Idle apps on a node of 4 GiB. */
const count = 1_000;
const neighbours = 100;
/** Asked for at once; a platform's traffic is not one request after the other. */
const atOnce = 8;

let cluster: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-density-"));
  cluster = await startCell({ maxConcurrent: count + 2 * neighbours, memory: "4GiB", cpus: 2 });
}, minute);

afterAll(async () => {
  await cluster?.stop();
  await rm(directory, { recursive: true, force: true });
}, minute);

async function deploy(app: "identity" | "busy", tenants: readonly string[]): Promise<void> {
  const path = await writeApp(directory, app, app);
  const { digest } = await cluster.warren.upload(tenants[0]!, path);
  for (const key of tenants) await cluster.warren.apply({ key, source: { case: "release", value: digest } });
}

/** Asks all of them in random order; answers who answered each. */
async function askAll(tenants: readonly string[]): Promise<Map<string, string>> {
  const left = tenants.map((key) => ({ key, order: random() })).sort((a, b) => a.order - b.order);
  const answers = new Map<string, string>();
  const ask = async () => {
    for (let next = left.pop(); next; next = left.pop()) {
      const response = await cluster.get(next.key);
      const text = await response.text();
      expect(`${response.status} ${next.key} ${response.ok || text}`).toBe(`200 ${next.key} true`);
      answers.set(next.key, text);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, ask));
  return answers;
}

const counts = async () => (await cluster.warren.scheduler.getStats({})).counts;

test(
  `rule 11: ${count} idle apps on two cores and 4 GiB, asked twice in random order: each is answered by the same instance`,
  async () => {
    const tenants = Array.from({ length: count }, (_, i) => `idle-${i}`);
    await deploy("identity", tenants);
    const first = await askAll(tenants);
    const second = await askAll(tenants);
    const others = tenants.filter((key) => first.get(key) !== second.get(key));
    expect(others, `SEED=${seed}`).toEqual([]);
    expect((await counts()).evictions ?? 0n).toBe(0n);
    expect(await cluster.ready()).toHaveLength(count);
  },
  6 * minute,
);

test(
  "rule 11: beside a tenant that takes every core, a hundred others start and answer, and nobody is stopped",
  async () => {
    const tenants = Array.from({ length: neighbours }, (_, i) => `beside-${i}`);
    await deploy("identity", tenants);
    await deploy("busy", ["busy"]);
    expect((await cluster.get("busy")).status).toBe(200);
    const first = await askAll(tenants);
    expect(await askAll(tenants)).toEqual(first);
    expect((await counts()).evictions ?? 0n).toBe(0n);
    await cluster.warren.scheduler.stop({ tenant: "busy" });
  },
  3 * minute,
);
