/** Rule 8: what a scheduler decided while the journal was away is in the journal in the end, though it was killed. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { openJournalReader } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { writeApp } from "../src/apps.ts";
import { Fleet } from "../src/fleet.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-outbox-"));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const tenants = ["a", "b", "c"];

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

  await using reader = await openJournalReader({ url: nats.url, directory });
  const seen: string[] = [];
  const stop = AbortSignal.timeout(20_000);
  const enough = new AbortController();
  for await (const { records } of reader.read({ signal: AbortSignal.any([stop, enough.signal]) })) {
    seen.push(...records.map(({ id }) => id));
    if (undelivered.every((id) => seen.includes(id))) enough.abort();
  }
  for (const id of undelivered) expect(seen.filter((one) => one === id)).toEqual([id]);
  // And from 1, without a gap.
  const own = seen.filter((id) => id.startsWith(`${leader.name}:${epoch}:`));
  expect(own).toEqual(own.map((_, i) => `${leader.name}:${epoch}:${i + 1}`));
}, 120_000);
