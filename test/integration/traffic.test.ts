/** Rule 8 on real processes: what gateways passed stands in the journal, whatever dies on the way. */
import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadCredentials } from "@warren/client";
import { decodeEvent } from "@warren/common/cloudevents";
import { ulid } from "@warren/common/ids";
import { connectRpc } from "@warren/common/rpc/client";
import { Code, isRpcCode } from "@warren/common/rpc/errors";
import { readAsCloudEvent } from "@warren/common/testing/cloudevent";
import { waitUntil } from "@warren/common/time";
import type { Event } from "@warren/proto/common";
import { SchedulerService } from "@warren/proto/scheduler";
import { openJournalReader, type StoredRecord } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

/** All that the journal holds until its reader waits for more. */
async function journal(cell: TestCell, url?: string): Promise<StoredRecord[]> {
  await using reader = await openJournalReader({ url, directory: join(cell.state, "scheduler") });
  const records: StoredRecord[] = [];
  const stop = new AbortController();
  let quiet = setTimeout(() => stop.abort(), 1_000);
  for await (const batch of reader.read({ signal: stop.signal })) {
    records.push(...batch.records);
    clearTimeout(quiet);
    quiet = setTimeout(() => stop.abort(), 300);
  }
  return records;
}

function trafficOf(events: readonly Event[], tenant: string) {
  const runs = new Map<string, { requests: number; bytesOut: number }>();
  for (const { payload } of events) {
    if (payload.case !== "traffic" || payload.value.tenant !== tenant) continue;
    const key = `${payload.value.gateway}/${payload.value.run}`;
    const before = runs.get(key) ?? { requests: 0, bytesOut: 0 };
    runs.set(key, {
      requests: Math.max(before.requests, Number(payload.value.requests)),
      bytesOut: Math.max(before.bytesOut, Number(payload.value.bytesOut)),
    });
  }
  const all = [...runs.values()];
  return {
    requests: all.reduce((sum, { requests }) => sum + requests, 0),
    bytesOut: all.reduce((sum, { bytesOut }) => sum + bytesOut, 0),
  };
}

/** Nobody counts for another gateway. */
async function refusesStrangers(cell: TestCell): Promise<void> {
  const { cluster } = cell.cell;
  const ask = async (name: string, gateway: string) => {
    const credentials = loadCredentials(join(cell.state, "credentials", name));
    const connection = connectRpc({ url: cluster.scheduler, credentials });
    const report = { tenant: "shop", gateway: `${gateway}-${ulid()}`, requests: 1_000_000n };
    try {
      await connection.client(SchedulerService).reportTraffic({ records: [{ seq: 1n, report }] });
    } finally {
      connection.close();
    }
  };
  for (const [name, gateway] of [
    ["gateway", "another"],
    ["client", "gateway"],
  ] as const) {
    const error = await ask(name, gateway).catch((e: unknown) => e);
    expect(isRpcCode(error, Code.PermissionDenied), `${name} for ${gateway}: ${error}`).toBe(true);
  }
  // One that would be refused for its name does not begin to serve.
  const credentials = join(cell.state, "credentials", "gateway");
  const args = ["gateway", "--name", "other", "--credentials", credentials, "--scheduler", cluster.scheduler];
  const { code, stderr } = await cli(args);
  expect([code, stderr]).toEqual([2, expect.stringContaining("certificate of this gateway is for gateway")]);
}

for (const store of ["embedded", "nats"] as const) {
  test(`rule 8: requests and bytes of a gateway are in the journal, the scheduler killed and back: ${store}`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "warren-traffic-"));
    await using nats = store === "nats" ? await startNatsServer() : undefined;
    const cell = await startCell({ natsUrl: nats?.url });
    try {
      const app = await writeApp(directory, "app", "hello");
      const release = await cell.warren.upload("shop", app);
      await cell.warren.apply({ key: "shop", source: { case: "release", value: release.digest } });
      const truth = { requests: 0, bytesOut: 0 };
      const ask = async (times: number) => {
        for (let i = 0; i < times; i++) {
          const text = await (await cell.get("shop")).text();
          expect(text).toStartWith("hello from ");
          truth.requests++;
          truth.bytesOut += text.length;
        }
      };
      await ask(20);
      const scheduler = cell.cell.child("scheduler");
      const { pid } = scheduler;
      process.kill(pid!, "SIGKILL");
      await ask(20); // while nobody can be told
      await waitUntil(() => scheduler.pid !== pid, { deadlineMs: 40_000, what: "the scheduler to be back" });
      await ask(20);
      let records: StoredRecord[] = [];
      await waitUntil(
        async () => {
          records = await journal(cell, nats?.url);
          const events = records.map((record) => decodeEvent(record, record.seq));
          return trafficOf(events, "shop").requests === truth.requests;
        },
        { deadlineMs: 45_000, what: `${truth.requests} requests in the journal` },
      );
      const events = records.map((record) => decodeEvent(record, record.seq));
      expect(trafficOf(events, "shop")).toEqual(truth);
      expect(events.find(({ payload }) => payload.case === "traffic")?.source).toBe("gateway");
      await refusesStrangers(cell);
      // And all that a cell says is a CloudEvent to others.
      for (const record of records) expect(readAsCloudEvent(record).source).toStartWith("/warren/");
      expect(new Set(records.map(({ headers }) => headers["ce-type"])).size).toBeGreaterThanOrEqual(5);
    } finally {
      await cell.stop();
      await rm(directory, { recursive: true, force: true });
    }
    expect(cell.left()).toEqual([]);
  }, 120_000);
}
