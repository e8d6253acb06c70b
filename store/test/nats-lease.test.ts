/** The lease between processes: crashes, pauses and outages, with durations of about a second instead of twenty. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { LeaseLostError, openNatsStore, StoreInputError, StoreLockedError } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { eventually, SHORT_LEASE, startChild, temporaryDirectory } from "./harness.ts";

const cell = "test";

test("a follower takes over from a killed holder, not before it saw the revision unchanged long enough", async () => {
  await using server = await startNatsServer();
  using temporary = temporaryDirectory();
  const child = startChild("leader.ts", {
    url: server.url,
    directory: join(temporary.path, "child"),
    cell,
    holder: "child",
  });
  await child.line(/^leads 1$/);
  await using store = await openNatsStore({ url: server.url, cell, lease: SHORT_LEASE });
  const told: string[] = [];
  const waiting = store.acquireLease({
    holder: "follower",
    address: "f:1",
    signal: AbortSignal.timeout(15_000),
    onWaiting: ({ holder, address }) => told.push(`${holder} ${address}`),
  });
  await eventually(() => told.length > 0);
  await child.line(/^wrote 20$/); // a living holder is left alone
  await child.kill9();
  const killedAt = performance.now();
  const lease = await waiting;
  // It had renewed at most renewEveryMs before it died.
  expect(performance.now() - killedAt).toBeGreaterThan(
    SHORT_LEASE.takeoverMs! - SHORT_LEASE.renewEveryMs! - 100,
  );
  expect(told).toEqual(["child child:1"]);
  expect(lease.epoch).toBe(2n);
}, 20_000);

test("S2: a holder that slept through its takeover is stale at its next append and told that it lost", async () => {
  await using server = await startNatsServer();
  using temporary = temporaryDirectory();
  await using child = startChild("leader.ts", {
    url: server.url,
    directory: join(temporary.path, "child"),
    cell,
    holder: "child",
  });
  await child.line(/^wrote 5$/);
  await using store = await openNatsStore({ url: server.url, cell, lease: SHORT_LEASE });
  child.signal("SIGSTOP");
  const lease = await store.acquireLease({
    holder: "follower",
    address: "f:1",
    signal: AbortSignal.timeout(15_000),
  });
  const { lastSeq } = await store.state.load();
  child.signal("SIGCONT");
  await child.line(/^stale$/);
  await child.line(/^lost LeaseLostError$/);
  // And it has disturbed nobody.
  expect((await store.state.load()).lastSeq).toBe(lastSeq);
  expect(lease.lost.aborted).toBe(false);
  await store.state.append("mine", new Uint8Array(1), lastSeq);
}, 20_000);

test("a holder whose process could run nothing past its hold is not one any more, before any timer has told it", async () => {
  await using server = await startNatsServer();
  await using store = await openNatsStore({ url: server.url, cell, lease: SHORT_LEASE });
  const lease = await store.acquireLease({
    holder: "me",
    address: "me:1",
    signal: AbortSignal.timeout(5000),
  });
  expect(lease.held).toBe(true);
  const until = performance.now() + SHORT_LEASE.holdMs! + 1;
  while (performance.now() < until); // as SIGSTOP would: nothing else of this process runs
  expect(lease.lost.aborted).toBe(false);
  expect(lease.held).toBe(false);
  expect(lease.lost.reason).toBeInstanceOf(LeaseLostError);
}, 20_000);

test("what was given up is taken within a second, with the default timings", async () => {
  await using server = await startNatsServer();
  await using store = await openNatsStore({ url: server.url, cell });
  await using other = await openNatsStore({ url: server.url, cell });
  const signal = AbortSignal.timeout(10_000);
  const lease = await store.acquireLease({ holder: "me", address: "me:1", signal });
  let told = "";
  const waiting = other.acquireLease({
    holder: "other",
    address: "other:1",
    signal,
    onWaiting: ({ address }) => {
      told = address;
    },
  });
  await eventually(() => told === "me:1");
  const start = performance.now();
  await lease.release();
  await waiting;
  expect(performance.now() - start).toBeLessThan(1000);
}, 20_000);

test("the same scheduler, started again on its directory after kill -9, takes over at once", async () => {
  await using server = await startNatsServer();
  using temporary = temporaryDirectory();
  const directory = join(temporary.path, "state");
  const place = { url: server.url, directory, cell };
  const child = startChild("leader.ts", { ...place, holder: "me", defaults: true });
  await child.line(/^leads 1$/);
  await expect(openNatsStore(place)).rejects.toBeInstanceOf(StoreLockedError);
  await child.kill9();
  const start = performance.now();
  await using store = await openNatsStore(place); // with the default 20 s
  const lease = await store.acquireLease({
    holder: "me",
    address: "me:1",
    signal: AbortSignal.timeout(10_000),
  });
  expect(performance.now() - start).toBeLessThan(3000);
  expect(lease.epoch).toBe(2n);

  // The same name on another directory proves nothing.
  await using impostor = await openNatsStore({ ...place, directory: join(temporary.path, "other") });
  const refused = impostor.acquireLease({ holder: "me", address: "me:2", signal: AbortSignal.timeout(1500) });
  await expect(refused).rejects.toMatchObject({ name: "TimeoutError" });
  expect(lease.lost.aborted).toBe(false);
}, 20_000);

test("a holder that cannot renew is told within its hold, and before anybody else may take over", async () => {
  await using server = await startNatsServer();
  await using store = await openNatsStore({ url: server.url, cell, lease: SHORT_LEASE });
  const lease = await store.acquireLease({
    holder: "me",
    address: "me:1",
    signal: AbortSignal.timeout(5000),
  });
  await server.pause();
  const start = performance.now();
  await eventually(() => lease.lost.aborted, 5000);
  expect(performance.now() - start).toBeLessThan(SHORT_LEASE.takeoverMs!);
  expect(lease.lost.reason).toBeInstanceOf(LeaseLostError);
  server.resume();
  const again = await store.acquireLease({
    holder: "me",
    address: "me:1",
    signal: AbortSignal.timeout(10_000),
  });
  expect(again.epoch).toBeGreaterThan(lease.epoch);
}, 20_000);

test("a short outage is not a loss: the holder renews when NATS is back", async () => {
  await using server = await startNatsServer();
  const lease = { renewEveryMs: 100, holdMs: 8000, takeoverMs: 9000, pollEveryMs: 20 };
  await using store = await openNatsStore({ url: server.url, cell, lease });
  await using other = await openNatsStore({ url: server.url, cell, lease });
  const held = await store.acquireLease({ holder: "me", address: "me:1", signal: AbortSignal.timeout(5000) });
  await server.restart();
  await server.restart();
  const { lastSeq } = await store.state.load();
  await store.state.append("a", new Uint8Array(1), lastSeq);
  const refused = other.acquireLease({ holder: "other", address: "o:1", signal: AbortSignal.timeout(1000) });
  await expect(refused).rejects.toMatchObject({ name: "TimeoutError" });
  expect(held.lost.aborted).toBe(false);
}, 20_000);

test("a clock that jumped past the hold, as after a suspended machine, ends the lease at the next look", async () => {
  await using server = await startNatsServer();
  let jump = 0;
  const clock = () => performance.now() + jump;
  await using store = await openNatsStore({ url: server.url, cell, lease: { ...SHORT_LEASE, clock } });
  const lease = await store.acquireLease({
    holder: "me",
    address: "me:1",
    signal: AbortSignal.timeout(5000),
  });
  jump = 60_000;
  await eventually(() => lease.lost.aborted, 5000);
  expect(lease.lost.reason).toBeInstanceOf(LeaseLostError);
});

test("the epoch rises above the sealed log's when the lease's own record is gone", async () => {
  await using server = await startNatsServer();
  await using store = await openNatsStore({ url: server.url, cell, lease: SHORT_LEASE });
  const first = await store.acquireLease({
    holder: "a",
    address: "a:1",
    atLeast: 41n,
    signal: AbortSignal.timeout(5000),
  });
  await first.release();
  const { connect } = await import("@nats-io/transport-node");
  const { jetstreamManager } = await import("@nats-io/jetstream");
  const nc = await connect({ servers: server.url.replace("nats://", "") });
  await (await jetstreamManager(nc)).streams.purge("WARREN_LEASE");
  await nc.close();
  const second = await store.acquireLease({ holder: "a", address: "a:1", signal: AbortSignal.timeout(5000) });
  expect([first.epoch, second.epoch]).toEqual([42n, 43n]);
});

test("many contenders, one winner at a time, each epoch once", async () => {
  await using server = await startNatsServer();
  const stores = await Promise.all(
    [1, 2, 3, 4].map(() => openNatsStore({ url: server.url, cell, lease: SHORT_LEASE })),
  );
  try {
    let inside = 0;
    const epochs: bigint[] = [];
    await Promise.all(
      stores.map(async (store, index) => {
        for (let round = 0; round < 3; round++) {
          const lease = await store.acquireLease({
            holder: `h${index}`,
            address: "x",
            signal: AbortSignal.timeout(15_000),
          });
          expect(++inside).toBe(1);
          const { lastSeq, epoch } = await store.state.load();
          expect(epoch).toBe(lease.epoch);
          await store.state.append("who", new Uint8Array([index, round]), lastSeq);
          epochs.push(lease.epoch);
          inside--;
          await lease.release();
        }
      }),
    );
    expect(new Set(epochs).size).toBe(12);
    expect(epochs).toEqual([...epochs].sort((a, b) => Number(a - b)));
  } finally {
    for (const store of stores) await store.close();
  }
}, 20_000);

test("timings that cannot be safe are refused", async () => {
  await using server = await startNatsServer();
  const wrong = openNatsStore({ url: server.url, cell, lease: { holdMs: 20_000, takeoverMs: 20_000 } });
  await expect(wrong).rejects.toBeInstanceOf(StoreInputError);
});
