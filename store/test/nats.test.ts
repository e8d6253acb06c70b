/** What only the NATS store has to do: outages, refusals, streams that differ, positions of durable readers. */
import { describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { AckPolicy, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import {
  type JournalReader,
  openNatsJournalReader,
  openNatsStore,
  StaleWriterError,
  type Store,
  StoreInputError,
  StoreMismatchError,
  StoreUnavailableError,
} from "@warren/store";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import {
  bytes,
  chunks,
  collect,
  eventually,
  readAll,
  readSome,
  record,
  records,
  seeded,
  text,
} from "./harness.ts";

const cell = "test";

async function manager(server: NatsServer) {
  const nc = await connect({ servers: server.url.replace("nats://", "") });
  const jsm = await jetstreamManager(nc);
  return { nc, jsm, js: jsm.jetstream(), [Symbol.asyncDispose]: () => nc.close() };
}

/** Appends until it succeeds, as a producer with a spool does. */
async function appendSurely(store: Store, ids: number[], outages: { count: number }): Promise<void> {
  for (;;) {
    try {
      await store.journal.append(
        ids.map((id) => record(id)),
        { deadlineMs: 500 },
      );
      return;
    } catch (error) {
      expect(error).toBeInstanceOf(StoreUnavailableError);
      outages.count++;
    }
  }
}

describe("opening", () => {
  test("without a NATS says where it looked and what to do, in time and without the password", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => listener.once("listening", resolve));
    const port = (listener.address() as { port: number }).port;
    await new Promise((resolve) => listener.close(resolve));
    const url = `nats://warren:s3cret@127.0.0.1:${port}`;
    const start = performance.now();
    for (const opening of [
      openNatsStore({ url, cell, openDeadlineMs: 300 }),
      openNatsJournalReader({ url, openDeadlineMs: 300 }),
    ]) {
      const error = (await opening.catch((reason: unknown) => reason)) as Error;
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect(error.message).toContain(`nats://127.0.0.1:${port}`);
      expect(error.message).toContain("start nats-server");
      expect(Bun.inspect(error)).not.toContain("s3cret");
    }
    expect(performance.now() - start).toBeLessThan(3000);
    const wrong = (await openNatsStore({ url: "http://u:s3cret@x", cell }).catch(
      (reason: unknown) => reason,
    )) as Error;
    expect(wrong).toBeInstanceOf(StoreInputError);
    expect(wrong.message).not.toContain("s3cret");
  });

  test("with wrong credentials is refused at once, with right ones it works", async () => {
    await using server = await startNatsServer({ args: ["--auth", "s3cret"] });
    const bare = server.url;
    for (const options of [
      { url: bare },
      { url: bare, token: "guess" },
      { url: bare.replace("//", "//guess@") },
    ]) {
      const error = (await openNatsStore({ ...options, cell }).catch((reason: unknown) => reason)) as Error;
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect(error.message).toContain("refuses our credentials");
      expect(error.message).not.toContain("guess");
    }
    await (await openNatsStore({ url: bare, token: "s3cret", cell })).close();
    await (await openNatsStore({ url: bare.replace("//", "//s3cret@"), cell })).close();
  });

  test("finds an existing stream that differs, names each field, and leaves it as it is", async () => {
    await using server = await startNatsServer();
    await using admin = await manager(server);
    await admin.jsm.streams.add({ name: "WARREN_EVENTS", subjects: ["warren.events.>"], max_msgs: 10 });
    const before = (await admin.jsm.streams.info("WARREN_EVENTS")).config;
    const error = (await openNatsStore({ url: server.url, cell }).catch(
      (reason: unknown) => reason,
    )) as Error;
    expect(error).toBeInstanceOf(StoreMismatchError);
    for (const part of [
      "WARREN_EVENTS",
      "max_msgs is 10, needs 5000000",
      "max_age is 0",
      "duplicate_window",
      "description",
    ]) {
      expect(error.message).toContain(part);
    }
    expect(error.message).not.toContain("subjects");
    expect((await admin.jsm.streams.info("WARREN_EVENTS")).config).toEqual(before);
  });

  test("with the streams of another cell is refused; twice at once for one cell works", async () => {
    await using server = await startNatsServer();
    const stores = await Promise.all([1, 2, 3].map(() => openNatsStore({ url: server.url, cell })));
    for (const store of stores) await store.close();
    const error = (await openNatsStore({ url: server.url, cell: "other" }).catch(
      (reason: unknown) => reason,
    )) as Error;
    expect(error).toBeInstanceOf(StoreMismatchError);
    expect(error.message).toContain("Warren cell test");
  });
});

describe("durable readers", () => {
  const infoOf = async (server: NatsServer, name: string) => {
    await using admin = await manager(server);
    return await admin.jsm.consumers.info("WARREN_EVENTS", name);
  };
  const ids = (found: readonly { id: string }[]) => found.map(({ id }) => id);

  test("show what they acknowledged, and go on where they say, not where the server would", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    await store.journal.append(records(0, 30));
    const first = await readSome(store.journal, 10, { durable: "ledger", batch: 10, ack: true });
    expect(ids(first)).toEqual(ids(records(0, 10)));
    expect(await infoOf(server, "ledger")).toMatchObject({
      ack_floor: { stream_seq: 10 },
      num_ack_pending: 0,
      num_pending: 20,
    });
    // Delivered, and not acknowledged; then one who has forgotten more than was acknowledged.
    await readSome(store.journal, 10, { durable: "ledger", batch: 10, after: 10n });
    await using reader = await openNatsJournalReader({ url: server.url });
    const again = await readSome(reader, 25, { durable: "ledger", batch: 10, after: 5n, ack: true });
    expect(ids(again)).toEqual(ids(records(5, 30)));
    expect(await infoOf(server, "ledger")).toMatchObject({ ack_floor: { stream_seq: 30 }, num_pending: 0 });
    // And one who knows more than the server.
    await store.journal.append(records(30, 32));
    expect(ids(await readSome(reader, 1, { durable: "ledger", after: 31n }))).toEqual([record(31).id]);
  });

  test("read in order and without a repeat what a crashed one was given, and did not acknowledge", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    await store.journal.append(records(0, 9));
    const crashed = store.journal
      .read({ durable: "ledger", batch: 5, signal: AbortSignal.timeout(20_000) })
      [Symbol.asyncIterator]();
    expect((await crashed.next()).value?.records).toHaveLength(5);
    // Nothing more is asked of that reader: as if its process were gone.
    await using reader = await openNatsJournalReader({ url: server.url });
    const started = performance.now();
    const again = await readSome(reader, 9, { durable: "ledger", ack: true });
    expect(ids(again)).toEqual(ids(records(0, 9)));
    expect(performance.now() - started).toBeLessThan(5_000); // not after the 30 s of ack_wait
    await crashed.return?.();
  });

  test("whose consumer is deleted under them go on without a gap or a repeat", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    await using admin = await manager(server);
    await store.journal.append(records(0, 3));
    const seen: string[] = [];
    for await (const batch of store.journal.read({
      durable: "ledger",
      batch: 2,
      signal: AbortSignal.timeout(20_000),
    })) {
      await admin.jsm.consumers.delete("WARREN_EVENTS", "ledger");
      await batch.ack().catch((error: unknown) => expect(error).toBeInstanceOf(StoreUnavailableError));
      seen.push(...ids(batch.records));
      if (seen.length >= 6) break;
      await store.journal.append(records(seen.length + 1, seen.length + 3));
    }
    expect(seen.slice(0, 6)).toEqual(ids(records(0, 6)));
  });

  test("of one name take the consumer from each other, and both read all, in order, once", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    const sent = records(0, 400);
    await store.journal.append(sent);
    const read = async (after: bigint) => {
      await using reader = await openNatsJournalReader({ url: server.url });
      // From other places, so that the other's deliveries would be taken for one's own by their count alone.
      return await readSome(
        reader,
        400 - Number(after),
        { durable: "d", batch: 20, after, ack: false },
        60_000,
      );
    };
    const found = await Promise.all([read(0n), read(100n), read(200n)]);
    for (const [n, some] of found.entries()) expect(ids(some)).toEqual(ids(sent.slice(100 * n)));
  }, 70_000);

  test("of one name, one of which waits at the end, do not keep the other from reading", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    const sent = records(0, 300);
    await store.journal.append(sent);
    const stop = new AbortController();
    const waiting: string[] = [];
    const idle = (async () => {
      await using reader = await openNatsJournalReader({ url: server.url });
      for await (const batch of reader.read({ durable: "d", after: 299n, signal: stop.signal })) {
        waiting.push(...ids(batch.records));
      }
    })();
    await eventually(() => waiting.length === 1);
    const found = await readSome(store.journal, 300, { durable: "d", batch: 10 }, 30_000);
    expect(ids(found)).toEqual(ids(sent));
    await store.journal.append(records(300, 301));
    await eventually(() => waiting.length === 2);
    stop.abort();
    await idle;
    expect(waiting).toEqual(ids(records(299, 301)));
  }, 40_000);

  test("leave a consumer alone that somebody else has given their name", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    await store.journal.append(records(0, 1));
    await using admin = await manager(server);
    await admin.jsm.consumers.add("WARREN_EVENTS", { durable_name: "d", ack_policy: AckPolicy.Explicit });
    const wrong = readSome(store.journal, 1, { durable: "d" });
    await expect(wrong).rejects.toBeInstanceOf(StoreMismatchError);
    expect((await infoOf(server, "d")).config.ack_policy).toBe(AckPolicy.Explicit);
  });

  test("wait for a stream that no scheduler has made yet", async () => {
    await using server = await startNatsServer();
    await using reader = await openNatsJournalReader({ url: server.url });
    const reading = [readSome(reader, 1, { durable: "d" }), readSome(reader, 1)];
    await using store = await openNatsStore({ url: server.url, cell });
    await store.journal.append([record(1)]);
    for (const found of reading) expect((await found).map(({ id }) => id)).toEqual([record(1).id]);
  });
});

describe("when NATS goes away under load", () => {
  test("appends fail or succeed once, readers go on; nothing acknowledged is lost, nothing is double", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    await using other = await openNatsJournalReader({ url: server.url });
    const random = seeded("outage");
    const follow = async (reader: JournalReader, seen: string[], durable?: string, signal = stop.signal) => {
      for await (const batch of reader.read({ durable, batch: 50, signal })) {
        seen.push(...batch.records.map(({ id }) => id));
        await batch.ack().catch((error: unknown) => expect(error).toBeInstanceOf(StoreUnavailableError));
      }
    };
    const stop = new AbortController();
    const ordered: string[] = [];
    const durable: string[] = [];
    const readers = Promise.all([follow(store.journal, ordered), follow(other, durable, "ledger")]);

    let done = false;
    const stored: number[] = [];
    const outages = { count: 0 };
    let next = 0;
    const producers = Array.from({ length: 4 }, async () => {
      while (!done) {
        const ids = Array.from({ length: 1 + random.int(40) }, () => next++);
        await appendSurely(store, ids, outages);
        stored.push(...ids);
      }
    });
    for (let round = 0; round < 3; round++) {
      const goal = stored.length + 500;
      await eventually(() => stored.length >= goal);
      await server.kill9();
      const seen = outages.count;
      // Round 1 comes back at once; in the others somebody has to notice.
      if (round !== 1) await eventually(() => outages.count > seen);
      await server.restart();
    }
    const goal = stored.length + 500;
    await eventually(() => stored.length >= goal);
    done = true;
    await Promise.all(producers);

    const found = (await readAll(store)).map(({ id }) => id);
    expect(new Set(found).size).toBe(found.length);
    expect([...found].sort()).toEqual(stored.map((n) => record(n).id).sort());
    await eventually(() => ordered.length >= found.length && new Set(durable).size >= found.length);
    stop.abort();
    await readers;
    const unmarked = (ids: string[]) => ids.filter((id) => !id.startsWith("mark:"));
    expect(unmarked(ordered)).toEqual(found); // strictly in order, each once
    expect([...new Set(unmarked(durable))].sort()).toEqual([...found].sort()); // each at least once
  }, 40_000);

  test("records keep the order of one append through an outage", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    const ids = Array.from({ length: 4000 }, (_, n) => n);
    const appending = store.journal.append(
      ids.map((id) => record(id)),
      { deadlineMs: 20_000 },
    );
    await using admin = await manager(server);
    await eventually(async () => (await admin.jsm.streams.info("WARREN_EVENTS")).state.messages > 100);
    await server.restart();
    await appending;
    expect((await readAll(store)).map(({ id }) => id)).toEqual(ids.map((id) => record(id).id));
  }, 30_000);

  test("state: an append whose answer got lost is recognised when it is repeated", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    const before = await store.state.append("a", bytes("1"), 0n);
    await server.pause(); // takes what we send, and answers nothing
    const unknown = store.state.append("a", bytes("2"), before, { deadlineMs: 300 });
    await expect(unknown).rejects.toBeInstanceOf(StoreUnavailableError);
    server.resume();
    const seq = await store.state.append("a", bytes("2"), before);
    expect(seq).toBe(before + 1n);
    expect((await store.state.load()).lastSeq).toBe(seq);

    await server.kill9();
    await expect(store.state.append("b", bytes("1"), seq, { deadlineMs: 200 })).rejects.toBeInstanceOf(
      StoreUnavailableError,
    );
    await expect(store.state.load({ deadlineMs: 200 })).rejects.toBeInstanceOf(StoreUnavailableError);
    await expect(store.ping(200)).rejects.toBeInstanceOf(StoreUnavailableError);
    await server.restart();
    expect(await store.state.append("b", bytes("1"), seq)).toBe(seq + 1n);
    await store.ping();
  }, 20_000);

  test("state: it is recognised after the server's window too, and an equal one of another writer is not", async () => {
    await using server = await startNatsServer();
    const options = { url: server.url, cell, duplicateWindowMs: 100 };
    await using store = await openNatsStore(options);
    await using peer = await openNatsStore(options);
    await using admin = await manager(server);
    const seq = await store.state.append("a", bytes("1"), 0n);
    const message = await admin.jsm.streams.getMessage("WARREN_STATE", { last_by_subj: "warren.state.a" });
    const msgID = message!.header.get("Nats-Msg-Id");
    // Until the server itself has forgotten the id: then it says that the sequence is wrong.
    await eventually(async () => {
      const again = admin.js.publish("warren.state.a", "1", { msgID, expect: { lastSequence: 0 } });
      return again.then(
        () => false,
        (error: { code?: number }) => error.code === 10071,
      );
    });
    expect(await store.state.append("a", bytes("1"), 0n)).toBe(seq);
    await expect(peer.state.append("a", bytes("1"), 0n)).rejects.toBeInstanceOf(StaleWriterError);
    expect((await store.state.load()).lastSeq).toBe(seq);
  });

  test("state survives kill -9 of NATS, tombstones and all, and its last sequence never goes back", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    let seq = 0n;
    for (let n = 0; n < 20; n++) seq = await store.state.append(`k.${n % 5}`, bytes(String(n)), seq);
    for (let n = 0; n < 5; n++) seq = await store.state.append(`k.${n}`, null, seq);
    await server.restart();
    expect(await store.state.load()).toEqual({ entries: new Map(), lastSeq: seq, epoch: 0n });
    seq = await store.state.append("k.1", bytes("back"), seq);
    await using admin = await manager(server);
    // Only the value is left: the tombstones were cleared away behind it, by the load's findings too.
    await eventually(async () => {
      seq = await store.state.append("k.1", bytes("again"), seq);
      return (await admin.jsm.streams.info("WARREN_STATE")).state.messages === 1;
    });
    await server.restart();
    const snapshot = await store.state.load();
    expect(snapshot.lastSeq).toBe(seq);
    expect(text(snapshot.entries.get("k.1"))).toBe("again");
  }, 20_000);

  test("blobs: a read goes on through a restart; a write fails whole and leaves nothing visible", async () => {
    await using server = await startNatsServer();
    await using store = await openNatsStore({ url: server.url, cell });
    const part = crypto.getRandomValues(new Uint8Array(1024 * 1024));
    await store.blobs.put("large", chunks(...Array.from({ length: 12 }, () => part)));
    const found: Uint8Array[] = [];
    for await (const chunk of store.blobs.get("large")) {
      found.push(chunk);
      if (found.length === 3) await server.restart();
    }
    expect(Bun.hash(Buffer.concat(found))).toBe(
      Bun.hash(Buffer.concat(Array.from({ length: 12 }, () => part))),
    );

    const broken = store.blobs.put(
      "broken",
      (async function* () {
        yield part;
        await server.kill9();
        yield part;
      })(),
    );
    await expect(broken).rejects.toBeInstanceOf(StoreUnavailableError);
    await server.restart();
    await eventually(async () => (await store.blobs.list()).length === 1);
    expect(await store.blobs.has("broken")).toBe(false);
    await store.blobs.put("broken", chunks(bytes("whole")));
    expect(text(await collect(store.blobs.get("broken")))).toBe("whole");
  }, 30_000);
});

test("a blob over the bound is refused and leaves nothing", async () => {
  await using server = await startNatsServer();
  await using store = await openNatsStore({ url: server.url, cell, maxBlobBytes: 200_000 });
  await expect(
    store.blobs.put("b", chunks(new Uint8Array(150_000), new Uint8Array(150_000))),
  ).rejects.toBeInstanceOf(StoreInputError);
  await using admin = await manager(server);
  expect((await admin.jsm.streams.info("OBJ_WARREN_BLOBS")).state.messages).toBe(0);
});
