/** The example that others copy: on Node, on Bun and in C, the same totals as the truth. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { jetstream } from "@nats-io/jetstream";
import { connect, headers as natsHeaders } from "@nats-io/transport-node";
import { type EventRecord, encodeEvent } from "@warren/common/cloudevents";
import { ulid } from "@warren/common/ids";
import { seeded } from "@warren/common/testing/seeded";
import { waitUntil } from "@warren/common/time";
import {
  InstanceState,
  NodeChange,
  NodeChangedSchema,
  TransitionSchema,
  UsageReportSchema,
} from "@warren/proto/common";
import { openNatsStore } from "@warren/store";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import { example } from "../src/cell.ts";
import { run } from "../src/cli.ts";

const directory = example("billing-consumer");
const tenants = ["blog", "shop", "wiki"];
const seed = Number(process.env.WARREN_SEED ?? Date.now() % 1_000_000);
let nats: NatsServer;
let scratch: string;
let truth: string;

/** What agents told of instances, whose truth is returned as the consumers print it. */
function workload(random: () => number): { records: EventRecord[]; truth: string } {
  const records: EventRecord[] = [];
  const lines: string[] = [];
  let seq = 0;
  const tell = (tenant: string, payload: Parameters<typeof encodeEvent>[0]["payload"]) =>
    records.push(
      encodeEvent({ id: `n1:s:${++seq}`, source: "n1", time: 1_700_000_000_000 + seq, tenant, payload }),
    );
  tell("", { case: "node", value: create(NodeChangedSchema, { node: "n1", change: NodeChange.UP }) });
  for (const tenant of tenants) {
    let [us, starts] = [0, 0];
    for (let i = 0; i < 12; i++) {
      const instance = { id: ulid(), tenant, node: "n1" };
      let cpuUs = 0;
      const usage = () => ({ cpuUs: BigInt(cpuUs) });
      const moved = (from: InstanceState, to: InstanceState) =>
        tell(tenant, {
          case: "transition",
          value: create(TransitionSchema, { instance, from, to, usage: usage() }),
        });
      const { STARTING, READY, EXITED } = InstanceState;
      if (random() < 0.9) {
        moved(STARTING, READY);
        starts++;
        for (let n = 0; n < 15; n++) {
          cpuUs += Math.floor(random() * 1_000_000);
          tell(tenant, { case: "usage", value: create(UsageReportSchema, { instance, usage: usage() }) });
        }
        moved(READY, EXITED);
      } else moved(STARTING, EXITED);
      us += cpuUs;
    }
    lines.push(`${tenant} ${(us / 1e6).toFixed(6)} ${starts}`);
  }
  return { records, truth: `${lines.join("\n")}\n` };
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "warren-billing-"));
  nats = await startNatsServer();
  // The stream as a scheduler makes it.
  await (await openNatsStore({ url: nats.url, cell: "local" })).close();
  const random = seeded(seed);
  const work = workload(random);
  truth = work.truth;
  // A third of them twice, and all in any order: without a message id the server takes what it is given.
  const all = work.records.flatMap((record) => (random() < 0.33 ? [record, record] : [record]));
  const order = all.map((record) => ({ record, at: random() })).sort((a, b) => a.at - b.at);
  const connection = await connect({ servers: nats.url });
  const stream = jetstream(connection);
  for (const { record } of order) {
    const headers = natsHeaders();
    for (const [name, value] of Object.entries(record.headers)) headers.set(name, value);
    await stream.publish(record.subject, record.data, { headers });
  }
  await connection.close();
});

afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

const env = (name: string) => ({ PATH: process.env.PATH!, HOME: scratch, CONSUMER: name });

/** Killed once it has committed something, whether acknowledged or not; then to its end. */
async function totals(name: string, command: readonly string[]): Promise<string> {
  const state = join(scratch, `${name}.state`);
  const args = [...command, nats.url, state];
  const first = Bun.spawn(args, { env: env(name), stdout: "ignore", stderr: "inherit", cwd: scratch });
  try {
    await waitUntil(() => existsSync(state), { deadlineMs: 20_000, what: `a commit of ${name}` });
  } finally {
    first.kill("SIGKILL");
    await first.exited;
  }
  const { code, stdout, stderr } = await run([...args, "--once"], {
    env: env(name),
    cwd: scratch,
    deadlineMs: 60_000,
  });
  expect([code, stderr], `SEED=${seed}`).toEqual([0, ""]);
  return stdout;
}

const node = Bun.which("node");
const gcc = Bun.which("gcc");
const hasLibraries = existsSync("/usr/include/nats/nats.h") && existsSync("/usr/include/sqlite3.h");

test("on Bun", async () => {
  expect(await totals("bun", [process.execPath, join(directory, "consumer.js")])).toBe(truth);
}, 90_000);

test.skipIf(!node)(
  "on Node",
  async () => {
    expect(await totals("node", [node!, join(directory, "consumer.js")])).toBe(truth);
  },
  90_000,
);

test.skipIf(!gcc || !hasLibraries)(
  "in C",
  async () => {
    const program = join(scratch, "consumer");
    const source = join(directory, "consumer.c");
    const built = await run(
      [gcc!, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-lnats", "-lsqlite3"],
      { env: { PATH: process.env.PATH! } },
    );
    expect([built.code, built.stderr]).toEqual([0, ""]);
    expect(await totals("c", [program])).toBe(truth);
  },
  90_000,
);
