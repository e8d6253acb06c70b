/** Instances replaced under load: a drained node, a good and a broken release. No request may fail. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toDuration, waitUntil } from "@warren/common/time";
import { RolloutState } from "@warren/proto/common";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import type { Load } from "../src/load/load.ts";
import { startLoadProcess } from "../src/load/process.ts";

const tenants = ["a", "b", "several"];
let directory: string;
let cell: TestCell;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-replace-"));
  cell = await startCell({ nodes: 3 });
  const app = await writeApp(directory, "app", "slow");
  for (const key of tenants) {
    const release = await cell.warren.upload(key, app);
    const source = { case: "release", value: release.digest } as const;
    const instances = key === "several" ? { min: 3, max: 3 } : undefined;
    await cell.warren.apply({ key, source, instances });
    await cell.warren.scheduler.ensure({ tenant: key });
  }
  await waitUntil(async () => (await cell.ready()).length === 5, {
    deadlineMs: 20_000,
    what: "five instances",
  });
}, 60_000);

afterAll(async () => {
  await cell.stop();
  await rm(directory, { recursive: true, force: true });
  expect(cell.left()).toEqual([]);
}, 60_000);

/** Each request takes 20 ms, so that some are always in flight. */
async function startLoad(body: string): Promise<Load> {
  const load = startLoadProcess({
    targets: tenants.map((tenant) => ({
      url: cell.url(tenant, "/?ms=20").replace(`${tenant}.localhost`, "127.0.0.1"),
      host: new URL(cell.url(tenant)).host,
    })),
    rate: 120,
    durationMs: 120_000,
    timeoutMs: 20_000,
    body,
  });
  await waitUntil(() => load.ok > 50, { deadlineMs: 15_000, what: "traffic" });
  return load;
}

async function expectNoFailure(load: Load): Promise<void> {
  const report = await load.stop();
  expect(report.failures).toEqual([]);
  expect(report.failed).toBe(0);
  expect(report.ok).toBe(report.due);
  expect(report.ok).toBeGreaterThan(50); // a quick machine is done soon
}

test("drain: every instance of a node is moved, and no request fails", async () => {
  const load = await startLoad("^slept 20$");
  for (const node of ["n1", "n2"]) {
    const before = (await cell.ready()).filter(({ ref }) => ref?.node === node).length;
    const { moved, stopped } = await cell.warren.scheduler.drainNode(
      { node, deadline: toDuration(60_000) },
      { timeoutMs: 90_000 },
    );
    expect({ node, moved, stopped }).toEqual({ node, moved: before, stopped: 0 });
    expect((await cell.ready()).filter(({ ref }) => ref?.node === node)).toEqual([]);
    await cell.warren.scheduler.uncordonNode({ node });
  }
  await expectNoFailure(load);
}, 180_000);

test("reload: a good release takes over, instance by instance, and no request fails", async () => {
  const load = await startLoad("^(slept 20|anew 20)$");
  const app = await writeApp(directory, "anew", "slow");
  await writeFile(
    join(app, "index.ts"),
    `Bun.serve({ port: process.env.PORT, async fetch() { await Bun.sleep(20); return new Response("anew 20"); } });`,
  );
  for (const key of tenants) {
    const { spec } = (await cell.warren.scheduler.getTenant({ tenant: key })).tenant!;
    const release = await cell.warren.upload(key, app);
    await cell.warren.apply({ ...spec!, source: { case: "release", value: release.digest } });
    const done = await waitUntil(
      async () => {
        const { tenant } = await cell.warren.scheduler.getTenant({ tenant: key });
        return tenant?.rollout?.state === RolloutState.DONE ? tenant.rollout : undefined;
      },
      { deadlineMs: 60_000, what: `${key} to be replaced` },
    );
    expect(done.replaced).toBe(key === "several" ? 3 : 1);
    expect(await cell.get(key).then((r) => r.text())).toBe("anew 20");
  }
  await cell.warren.scheduler.reload({ tenant: "several" }, { timeoutMs: 60_000 });
  await expectNoFailure(load);
}, 180_000);

test("reload: a broken release is rolled back, the old instances serve on, and no request fails", async () => {
  const load = await startLoad("^anew 20$");
  const app = await writeApp(directory, "broken", "exitsAtOnce");
  for (const key of tenants) {
    const before = (await cell.ready(key)).map(({ ref }) => ref!.id).sort();
    const { spec } = (await cell.warren.scheduler.getTenant({ tenant: key })).tenant!;
    const release = await cell.warren.upload(key, app);
    await cell.warren.apply({ ...spec!, source: { case: "release", value: release.digest } });
    const back = await waitUntil(
      async () => {
        const { tenant } = await cell.warren.scheduler.getTenant({ tenant: key });
        return tenant?.rollout?.state === RolloutState.ROLLED_BACK ? tenant : undefined;
      },
      { deadlineMs: 60_000, what: `${key} to be rolled back` },
    );
    expect(back.servingVersion).toBe(back.rollout!.previousVersion);
    expect((await cell.ready(key)).map(({ ref }) => ref!.id).sort()).toEqual(before);
  }
  await expectNoFailure(load);
}, 180_000);
