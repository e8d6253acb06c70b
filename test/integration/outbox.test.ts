/** Rule 8: what a scheduler decided while the journal was away is in the journal in the end, though it was killed. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeEvent } from "@warren/common/cloudevents";
import { readAsCloudEvent } from "@warren/common/testing/cloudevent";
import { waitUntil } from "@warren/common/time";
import { type Event, ExitReason, InstanceState, NodeChange } from "@warren/proto/common";
import { openJournalReader, type StoredRecord } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { writeApp } from "../src/apps.ts";
import { Fleet } from "../src/fleet.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-outbox-"));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const tenants = ["a", "b", "c"];

/** Reads the journal from its beginning until that holds of what it has. */
async function read(
  url: string,
  enough: (records: readonly StoredRecord[]) => boolean,
): Promise<StoredRecord[]> {
  await using reader = await openJournalReader({ url, directory });
  const seen: StoredRecord[] = [];
  const stop = AbortSignal.timeout(20_000);
  for await (const { records } of reader.read({ signal: stop })) {
    seen.push(...records);
    if (enough(seen)) return seen;
  }
  throw new Error(`not within 20 s; the journal holds ${seen.map(({ id }) => id).join(" ")}`);
}

test("rule 8: kill -9 of a leader that could not tell its decisions: it tells them as a follower, each once", async () => {
  await using nats = await startNatsServer();
  await using fleet = await Fleet.start({
    schedulers: 2,
    agents: 1,
    takeoverAfter: "6s",
    natsUrl: nats.url,
  });
  const app = await writeApp(directory, "app", "hello");
  for (const tenant of tenants) {
    const release = await fleet.warren.upload(tenant, app);
    await fleet.warren.apply({ key: tenant, source: { case: "release", value: release.digest } });
  }
  const { leader, epoch } = await fleet.leader();
  const outbox = join(fleet.root, leader.name, "events.outbox");
  const ids = () =>
    (existsSync(outbox) ? readFileSync(outbox, "utf8") : "")
      .split("\n")
      .filter((line) => line.includes("dev.warren.placement"))
      .map((line) => (JSON.parse(line) as { record: { id: string } }).record.id);

  const before = ids();
  await nats.pause();
  const direct = fleet.connect(leader);
  const asked = tenants.map((tenant) => direct.scheduler.ensure({ tenant }).catch(() => undefined));
  const undelivered = await waitUntil(
    () => {
      const fresh = ids().filter((id) => !before.includes(id));
      return fresh.length >= tenants.length ? fresh : undefined;
    },
    { deadlineMs: 4_000, what: "placements on disk" },
  );
  await leader.kill();
  nats.resume();
  await Promise.all(asked);
  for (const id of undelivered) expect(id).toStartWith(`${leader.name}:${epoch}:`);

  await fleet.leader(epoch, 30_000);
  await leader.start();
  expect((await fleet.ask(leader)).kind).toBe("follows");

  const records = await read(nats.url, (all) =>
    undelivered.every((id) => all.some((record) => record.id === id)),
  );
  const seen = records.map(({ id }) => id);
  for (const id of undelivered) expect(seen.filter((one) => one === id)).toEqual([id]);
  // And from 1, without a gap.
  const own = seen.filter((id) => id.startsWith(`${leader.name}:${epoch}:`));
  expect(own).toEqual(own.map((_, i) => `${leader.name}:${epoch}:${i + 1}`));
}, 120_000);

test("rule 8: what ran on a node that is forgotten has ended, once, though the scheduler is killed; all as protobuf", async () => {
  await using nats = await startNatsServer();
  await using fleet = await Fleet.start({
    schedulers: 1,
    agents: 1,
    takeoverAfter: "6s",
    natsUrl: nats.url,
    schedulerArgs: ["--event-format", "protobuf"],
  });
  const app = await writeApp(directory, "app", "hello");
  const release = await fleet.warren.upload("a", app);
  await fleet.warren.apply({ key: "a", source: { case: "release", value: release.digest } });
  const { instance } = await fleet.warren.scheduler.ensure({ tenant: "a" });
  const [running] = (await fleet.warren.scheduler.listInstances({})).instances;
  const [agent] = fleet.agents;
  await agent!.kill();
  process.kill(running!.pid, "SIGKILL");
  await fleet.warren.scheduler.forgetNode({ node: "n1", force: true });
  const [scheduler] = fleet.schedulers;
  await scheduler!.kill();
  await scheduler!.start();

  const forgotten = ({ payload }: Event) =>
    payload.case === "node" && payload.value.change === NodeChange.FORGOTTEN;
  const records = await read(nats.url, (all) =>
    all.some((record) => forgotten(decodeEvent(record, record.seq))),
  );
  for (const record of records) {
    expect(readAsCloudEvent(record).datacontenttype).toBe("application/protobuf");
  }
  const ends = records
    .map((record) => decodeEvent(record, record.seq))
    .filter(({ payload }) => payload.case === "transition" && payload.value.to === InstanceState.EXITED);
  expect(ends).toMatchObject([
    {
      id: `node-lost:${instance!.id}:1`,
      source: scheduler!.name,
      tenant: "a",
      payload: { value: { from: InstanceState.READY, exit: { reason: ExitReason.NODE_LOST }, instance } },
    },
  ]);
}, 120_000);
