/** Rule 7 on real processes: kill -9 of each, and what goes on meanwhile. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { NodeState } from "@warren/proto/common";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { startTraffic } from "../src/traffic.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-faults-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function deploy(cell: TestCell, tenants: readonly string[]): Promise<void> {
  const app = await writeApp(directory, "app", "hello");
  for (const tenant of tenants) {
    const release = await cell.warren.upload(tenant, app);
    await cell.warren.apply({ key: tenant, source: { case: "release", value: release.digest } });
    expect((await cell.get(tenant)).status).toBe(200);
  }
}

const ids = async (cell: TestCell) => (await cell.ready()).map(({ ref }) => ref!.id).sort();

async function kill(cell: TestCell, name: string): Promise<void> {
  const child = cell.cell.child(name);
  const pid = child.pid!;
  process.kill(pid, "SIGKILL");
  await waitUntil(() => child.pid !== pid, { deadlineMs: 40_000, what: `${name} to be started again` });
}

for (const store of ["embedded", "nats"] as const) {
  describe(`on the ${store} store`, () => {
    test("rule 7: kill -9 of scheduler, metering and an agent during traffic: warm requests succeed, the ids stay", async () => {
      await using nats = store === "nats" ? await startNatsServer() : undefined;
      const cell = await startCell({ nodes: 2, natsUrl: nats?.url });
      try {
        const tenants = ["a", "b", "c"];
        await deploy(cell, tenants);
        const before = await ids(cell);
        expect(before).toHaveLength(3);
        const traffic = tenants.map((tenant) => startTraffic(cell.url(tenant), 25));
        await cell.remember();
        for (const name of ["scheduler", "agent-n1", "metering", "agent-n2"]) {
          await kill(cell, name);
          await waitUntil(async () => (await ids(cell).catch(() => [])).join() === before.join(), {
            deadlineMs: 30_000,
            what: `the same instances after kill -9 of ${name}`,
          });
        }
        await Promise.all(traffic.map((one) => one.stop()));
        expect(traffic.flatMap(({ failures }) => failures)).toEqual([]);
        expect(traffic.every(({ ok }) => ok > 20)).toBe(true);
        // And the cell still does everything.
        expect((await cell.warren.scheduler.restart({ tenant: "a" })).instance?.id).toBeTruthy();
        expect((await cell.get("a")).status).toBe(200);
        await waitUntil(
          () =>
            cell.warren.metering.getUsage({ tenant: "a" }).then(
              ({ rows }) => rows[0]?.starts === 2n,
              () => false,
            ),
          {
            deadlineMs: 15_000,
            what: "both starts of a in the ledger",
          },
        );
      } finally {
        await cell.stop();
      }
      expect(cell.left()).toEqual([]);
    }, 120_000);
  });
}

test("rule 7: NATS goes away: warm tenants answer, a cold start is refused with the cause; all is well when it is back", async () => {
  await using nats = await startNatsServer();
  const cell = await startCell({ natsUrl: nats.url });
  try {
    await deploy(cell, ["warm", "cold"]);
    await cell.warren.scheduler.stop({ tenant: "cold" });
    await nats.stop();
    const traffic = startTraffic(cell.url("warm"), 25);
    const error = await cell.warren.scheduler
      .ensure({ tenant: "cold" }, { timeoutMs: 14_000 })
      .catch((e: Error) => e);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toContain("the store cannot be reached");
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
    expect(traffic.ok).toBeGreaterThan(20);
    await nats.restart();
    await waitUntil(
      () =>
        cell.get("cold").then(
          ({ status }) => status === 200,
          () => false,
        ),
      {
        deadlineMs: 40_000,
        what: "the cold tenant to start once NATS is back",
      },
    );
    expect((await cell.get("warm")).status).toBe(200);
  } finally {
    await cell.stop();
  }
  expect(cell.left()).toEqual([]);
}, 120_000);

test("rule 2: a node that was silent until it was lost, and is back, serves its tenants again, as the same instances", async () => {
  const cell = await startCell();
  try {
    await deploy(cell, ["a"]);
    const before = await ids(cell);
    const pid = cell.cell.child("agent-n1").pid!;
    process.kill(pid, "SIGSTOP");
    await waitUntil(
      async () => (await cell.warren.scheduler.listNodes({})).nodes[0]?.state === NodeState.LOST,
      {
        deadlineMs: 40_000,
        what: "the node to be lost",
      },
    );
    process.kill(pid, "SIGCONT");
    await waitUntil(async () => (await ids(cell)).join() === before.join(), {
      deadlineMs: 20_000,
      what: "the instance to be back",
    });
    expect((await cell.get("a")).status).toBe(200);
    expect(await ids(cell)).toEqual(before);
  } finally {
    await cell.stop();
  }
}, 90_000);
