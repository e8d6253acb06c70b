/** Idle instances put to sleep and woken, through a whole cell of real processes. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toDuration, waitUntil } from "@warren/common/time";
import { InstanceMode } from "@warren/proto/common";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";

let directory: string;
let cell: TestCell;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-sleep-"));
  cell = await startCell();
  const app = await writeApp(directory, "app", "slow");
  for (const key of ["a", "b"]) {
    const release = await cell.warren.upload(key, app);
    const idle = { freezeAfter: toDuration(300), stopAfter: toDuration(600_000) };
    await cell.warren.apply({ key, source: { case: "release", value: release.digest }, idle });
  }
});

afterAll(async () => {
  await cell.stop();
  await rm(directory, { recursive: true, force: true });
  expect(cell.left()).toEqual([]);
});

async function frozen(tenant: string) {
  return waitUntil(async () => (await cell.ready(tenant)).find(({ mode }) => mode === InstanceMode.FROZEN), {
    deadlineMs: 15_000,
    what: `${tenant} to be frozen`,
  });
}

describe("an idle tenant", () => {
  test("is frozen, uses no CPU, and wakes with the next request: the same process, without a start", async () => {
    expect((await cell.get("a")).status).toBe(200);
    const asleep = await frozen("a");
    const response = await cell.get("a");
    expect(response.status).toBe(200);
    const [awake] = await cell.ready("a");
    expect(awake?.ref?.id).toBe(asleep.ref!.id);
    expect(awake?.pid).toBe(asleep.pid);
    const { counts } = await cell.warren.scheduler.getStats({});
    expect(counts.placements).toBe(1n);
    await frozen("a");
  });

  test("rule 3: is not frozen while it answers", async () => {
    expect(await cell.get("a", "/?ms=2000").then((r) => r.text())).toBe("slept 2000");
  });

  test("rule 7: wakes with the scheduler killed", async () => {
    expect((await cell.get("b")).status).toBe(200);
    const { pid } = await frozen("b");
    const child = cell.cell.child("scheduler");
    const before = child.pid!;
    process.kill(before, "SIGKILL");
    const response = await cell.get("b");
    expect(response.status).toBe(200);
    await waitUntil(() => child.pid !== before, {
      deadlineMs: 40_000,
      what: "the scheduler to be started again",
    });
    const again = await waitUntil(
      () =>
        cell.ready("b").then(
          ([one]) => one,
          () => undefined,
        ),
      {
        deadlineMs: 30_000,
        what: "b to be known again",
      },
    );
    expect(again.pid).toBe(pid);
  });

  test("is woken by Ensure, too", async () => {
    const { ref } = await frozen("b");
    const answer = await cell.warren.scheduler.ensure({ tenant: "b" });
    expect(answer).toMatchObject({ cold: false, instance: { id: ref!.id } });
    expect((await cell.ready("b"))[0]?.mode).not.toBe(InstanceMode.FROZEN);
  });
});
