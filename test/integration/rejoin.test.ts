/** 500 agents lose their scheduler and find it again at once. Their reporters are the real ones; nothing runs on them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Fence } from "@warren/agent/fence";
import { agentMetrics } from "@warren/agent/metrics";
import { Reporter } from "@warren/agent/reporter";
import { Spool } from "@warren/agent/spool";
import { Warren } from "@warren/client";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import { connectLeader } from "@warren/common/rpc/leader";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { NodePressureSchema, NodeState, Role } from "@warren/proto/common";
import { FleetProcess } from "../src/fleet.ts";

const nodes = 500;
let directory: string;
let scheduler: FleetProcess;
let warren: Warren;
const reporters: Reporter[] = [];
const undo: (() => unknown)[] = [];
const failed: (() => Promise<number>)[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-rejoin-"));
  const secrets = await openCellSecrets(join(directory, "secrets"), "local");
  const own = await secrets.credentialsFor("scheduler", Role.SCHEDULER);
  const state = join(directory, "state");
  scheduler = new FleetProcess("scheduler", directory, [
    "scheduler",
    "--state",
    state,
    "--credentials",
    own.directory,
  ]);
  await scheduler.start();
  const client = await secrets.credentialsFor("client", Role.CLIENT);
  warren = new Warren({ url: scheduler.url, credentials: client.credentials });
  const log = createLogger({ process: "test", level: "silent" });
  for (let i = 0; i < nodes; i++) {
    const node = `n${i}`;
    const { credentials } = await secrets.credentialsFor(node, Role.AGENT);
    const connection = connectLeader({ urls: [scheduler.url], credentials });
    const metrics = agentMetrics(quiet);
    const reporter = new Reporter({
      connection,
      join: {
        node,
        agentUrl: `https://127.0.0.1:${10_000 + i}`,
        bootId: "boot",
        incarnation: ulid(),
        version: "test",
        capacity: { memoryBytes: 1n << 33n, cpuMillis: 4_000 },
        isolation: [],
        host: {},
        labels: {},
        allowDirectories: true,
      },
      spool: new Spool(join(directory, `${node}.spool`), log),
      fence: new Fence(join(directory, `${node}.epoch`), log),
      inventory: () => ({}),
      pressure: () => create(NodePressureSchema),
      metrics,
      log,
    });
    reporters.push(reporter);
    failed.push(async () => {
      const { values } = await metrics.reports.get();
      return values.find(({ labels }) => labels.outcome === "failed")?.value ?? 0;
    });
    undo.push(async () => {
      await reporter.stop();
      connection.close();
    });
  }
}, 120_000);

afterAll(async () => {
  await Promise.all(undo.map((one) => one()));
  warren.close();
  await scheduler.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

const quiet = {
  instances: () => 0,
  frozen: () => 0,
  spooled: () => 0,
  waitingStarts: () => 0,
  epoch: () => 0,
  logs: () => ({ readBytes: 0, writtenLines: 0, droppedBytes: 0, cutLines: 0 }),
};

async function allUp(epoch: bigint): Promise<void> {
  await waitUntil(
    async () => {
      const stats = await warren.scheduler.getStats({}).catch(() => undefined);
      return stats?.epoch === epoch && stats.nodesUp === nodes;
    },
    { deadlineMs: 90_000, what: `${nodes} nodes to report to epoch ${epoch}` },
  );
}

test("a killed scheduler is found again by all of them, and none is taken for lost on the way", async () => {
  await allUp(1n);
  const before = await Promise.all(failed.map((one) => one()));
  await scheduler.kill();
  await waitUntil(
    async () => (await Promise.all(failed.map((one) => one()))).every((n, i) => n > before[i]!),
    {
      deadlineMs: 60_000,
      what: "all of them to notice",
    },
  );
  await scheduler.start();
  await allUp(2n);
  const { counts } = await warren.scheduler.getStats({});
  expect(counts.nodes_lost ?? 0n).toBe(0n);
  const { nodes: listed } = await warren.scheduler.listNodes({});
  expect(new Set(listed.map(({ state }) => state))).toEqual(new Set([NodeState.UP]));
  // Each tried again a bounded number of times, further and further apart.
  const tries = (await Promise.all(failed.map((one) => one()))).map((n, i) => n - before[i]!);
  expect(Math.max(...tries)).toBeLessThan(40);
  expect(reporters.every((reporter) => reporter.joined)).toBe(true);
}, 240_000);
