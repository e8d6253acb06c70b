/** What every back end must do, S1 to S4 of store.ts. One suite, run against both. */
import { describe, expect, test } from "bun:test";
import {
  BlobNotFoundError,
  LeaseLostError,
  LIMITS,
  StaleWriterError,
  StoreInputError,
  StoreUnavailableError,
} from "@warren/store";
import {
  bytes,
  chunks,
  collect,
  eventually,
  KINDS,
  readAll,
  readSome,
  record,
  records,
  seeded,
  startBackend,
  startChild,
  text,
} from "./harness.ts";

for (const kind of KINDS) {
  describe(`${kind}: journal`, () => {
    test("gives back what was appended, in order", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const sent = [
        record("a:1:1", { headers: {}, data: new Uint8Array() }),
        record("a:1:2", { headers: { "ce-type": "x", empty: "", word: "grün ☂ 𝄞", ratio: 'a: b,c;d="e"' } }),
        record("a:1:3", { data: crypto.getRandomValues(new Uint8Array(LIMITS.recordDataBytes)) }),
        record("a:1:4", { subject: "warren.events._cluster.leader-changed" }),
      ];
      const before = Date.now();
      await store.journal.append(sent.slice(0, 2));
      await Promise.all(sent.slice(2).map((one) => store.journal.append([one])));
      const found = await readAll(store, undefined);
      expect(found.map(({ seq, storedAt, ...rest }) => rest)).toEqual(sent);
      expect(found.every(({ storedAt }) => storedAt >= before && storedAt <= Date.now())).toBe(true);
      // Read again, they tell the same.
      expect(await readAll(store, undefined)).toEqual(found);
      const seqs = found.map(({ seq }) => seq);
      expect(seqs).toEqual([...seqs].sort((a, b) => Number(a - b)));
    });

    test("tells with each batch how many records are behind it", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      await store.journal.append(records(0, 10));
      const pending: number[] = [];
      for await (const batch of store.journal.read({ batch: 4, signal: AbortSignal.timeout(10_000) })) {
        pending.push(batch.pending);
        if (batch.pending === 0) break;
      }
      expect(pending).toEqual([6, 2, 0]);
    });

    test("knows its end, over a reopening", async () => {
      await using backend = await startBackend(kind);
      {
        await using store = await backend.open();
        expect(await store.journal.lastSeq()).toBe(0n);
        await store.journal.append([record(1), record(2)]);
      }
      await using store = await backend.open();
      const end = await store.journal.lastSeq();
      expect((await readAll(store)).at(-1)?.seq).toBe(end);
    });

    test("S3: stores an id once, within one append, over several and over a reopening", async () => {
      await using backend = await startBackend(kind);
      {
        await using store = await backend.open();
        await store.journal.append([record(1), record(2), record(1)]);
        await Promise.all([store.journal.append([record(2), record(3)]), store.journal.append([record(3)])]);
      }
      await using store = await backend.open();
      await store.journal.append(records(0, 5));
      expect((await readAll(store)).map(({ id }) => id)).toEqual([1, 2, 3, 0, 4].map((n) => record(n).id));
    });

    test("reads after a sequence, from the end, below one tenant, in batches of the asked size", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      await store.journal.append(records(0, 10));
      await store.journal.append([record(10, { subject: "warren.events.shop2.usage" })]);
      const all = await readAll(store, undefined);
      const after = await readSome(store.journal, 3, { after: all[6]!.seq });
      expect(after.slice(0, 4).map(({ id }) => id)).toEqual([7, 8, 9, 10].map((n) => record(n).id));
      const tenant = await readSome(store.journal, 1, { subjectPrefix: "warren.events.shop2" });
      expect(tenant.map(({ id }) => id)).toEqual([record(10).id]);
      const batched = await readSome(store.journal, 1, { batch: 4 });
      expect(batched).toHaveLength(4);

      const signal = AbortSignal.timeout(10_000);
      const fromEnd = store.journal.read({ after: "end", signal })[Symbol.asyncIterator]();
      const next = fromEnd.next();
      // When the reader has found the end nobody says: feed it until it has.
      let n = 100;
      const first = await eventually(async () => {
        await store.journal.append([record(n++)]);
        return Promise.race([next, Bun.sleep(20).then(() => undefined)]);
      });
      expect(first?.value?.records[0]?.seq).toBeGreaterThan(all.at(-1)!.seq);
      await fromEnd.return?.();
    });

    test("a reader waits for what comes, and its signal ends it quietly", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const stop = new AbortController();
      const seen: string[] = [];
      const reading = (async () => {
        for await (const batch of store.journal.read({ signal: stop.signal })) {
          seen.push(...batch.records.map(({ id }) => id));
          await batch.ack();
        }
      })();
      for (let n = 0; n < 5; n++) {
        await store.journal.append([record(n)]);
        await eventually(() => seen.length === n + 1);
      }
      stop.abort();
      await reading;
      expect(seen).toEqual(records(0, 5).map(({ id }) => id));
    });

    test("a filtered reader gets past many records of others", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const others = Array.from({ length: 4000 }, (_, n) => record(n, { data: new Uint8Array() }));
      for (let round = 0; round < 6; round++) {
        await store.journal.append(others.map((one) => ({ ...one, id: `${one.id}:${round}` })));
      }
      await store.journal.append([record("late:1:1", { subject: "warren.events.rare.usage" })]);
      expect(await readSome(store.journal, 1, { subjectPrefix: "warren.events.rare" })).toHaveLength(1);
    }, 20_000);

    test("another process reads everything while this one writes", async () => {
      await using backend = await startBackend(kind);
      await using child = startChild("reader.ts", backend.place);
      await child.line(/^ready/); // before the store exists
      await using store = await backend.open();
      for (let n = 0; n < 400; n += 4) await store.journal.append(records(n, n + 4));
      await child.line(new RegExp(`${record(399).id}$`));
      const ids = child.lines.filter((line) => line.startsWith("read ")).map((line) => line.split(" ")[2]);
      expect(ids).toEqual(records(0, 400).map(({ id }) => id));
    }, 20_000);

    test("S1, S3: what a writer killed with -9 had acknowledged is there, once", async () => {
      await using backend = await startBackend(kind);
      const child = startChild("writer.ts", backend.place);
      await child.line(new RegExp(`stored ${record(150).id}$`));
      await child.line(/^state \d+ 50 /);
      await child.kill9();
      const acknowledged = child.lines
        .filter((line) => line.startsWith("stored"))
        .map((line) => line.split(" ")[1]!);
      await using store = await backend.open();
      const found = (await readAll(store)).map(({ id }) => id);
      expect(new Set(found).size).toBe(found.length);
      expect(found.slice(0, acknowledged.length)).toEqual(acknowledged);

      const [, slot, value, seq] = child.lines
        .filter((line) => line.startsWith("state"))
        .at(-1)!
        .split(" ");
      const snapshot = await store.state.load();
      // One more may have been stored without its answer having been printed.
      expect(Number(snapshot.lastSeq) - Number(seq)).toBeOneOf([0, 1]);
      if (snapshot.lastSeq === BigInt(seq!)) expect(text(snapshot.entries.get(`k.${slot}`))).toBe(value);
    }, 20_000);

    test("refuses what is over a bound, and stores nothing of it", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const good = record("good:1:1");
      const bad: Record<string, Parameters<typeof record>[1]> = {
        "id empty": { id: "" },
        "id too long": { id: "x".repeat(257) },
        "id with a space": { id: "a b" },
        "subject of others": { subject: "other.events.shop.x" },
        "subject without tenant": { subject: "warren.events" },
        "subject with a wildcard": { subject: "warren.events.*.x" },
        "subject with an empty token": { subject: "warren.events..x" },
        "data too large": { data: new Uint8Array(LIMITS.recordDataBytes + 1) },
        "too many headers": {
          headers: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`h${n}`, "x"])),
        },
        "header name in upper case": { headers: { "Ce-Id": "x" } },
        "header that would be an order to NATS": { headers: { "nats-rollup": "all" } },
        "header value too long": { headers: { a: "x".repeat(1025) } },
        "header value with a line break": { headers: { a: "x\r\nNats-Rollup: all" } },
        "header value with outer spaces": { headers: { a: " x" } },
        "header value with a lone surrogate": { headers: { a: "\ud800" } },
      };
      for (const [what, more] of Object.entries(bad)) {
        const failing = store.journal.append([good, record("bad:1:1", more)]);
        expect(await failing.catch((error: unknown) => error), what).toBeInstanceOf(StoreInputError);
      }
      const many = Array.from({ length: LIMITS.appendRecords + 1 }, () => good);
      await expect(store.journal.append(many)).rejects.toBeInstanceOf(StoreInputError);
      await expect(store.journal.append([good], { deadlineMs: 1e9 })).rejects.toBeInstanceOf(StoreInputError);
      expect(await readAll(store)).toEqual([]);
      for (const wrong of [
        { batch: 0 },
        { batch: 1e6 },
        { durable: "a b" },
        { subjectPrefix: "warren.events.>" },
        { after: -1n },
      ]) {
        await expect(readSome(store.journal, 1, wrong)).rejects.toBeInstanceOf(StoreInputError);
      }
    });

    test("S4: appends beyond the queue's bound are refused, not kept", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const batch = Array.from({ length: LIMITS.appendRecords }, (_, n) =>
        record(n, { data: new Uint8Array() }),
      );
      const results = await Promise.allSettled(
        Array.from({ length: 6 }, () => store.journal.append(batch, { deadlineMs: 20_000 })),
      );
      const refused = results.filter((result) => result.status === "rejected");
      expect(refused).toHaveLength(2);
      for (const { reason } of refused) expect(reason).toBeInstanceOf(StoreUnavailableError);
      await store.journal.append([record("after:1:1")]);
    }, 20_000);
  });

  describe(`${kind}: state`, () => {
    test("keeps the last value of each key, over a reopening", async () => {
      await using backend = await startBackend(kind);
      {
        await using store = await backend.open();
        expect(await store.state.load()).toEqual({ entries: new Map(), lastSeq: 0n, epoch: 0n });
        let seq = await store.state.append("tenants.shop", bytes("1"), 0n);
        seq = await store.state.append("tenants.shop", bytes("2"), seq);
        seq = await store.state.append("tenants.empty", new Uint8Array(), seq);
        await store.state.append("a.b.c.d", new Uint8Array(LIMITS.stateValueBytes).fill(7), seq);
      }
      await using store = await backend.open();
      const { entries, lastSeq } = await store.state.load();
      expect([...entries.keys()].sort()).toEqual(["a.b.c.d", "tenants.empty", "tenants.shop"]);
      expect(text(entries.get("tenants.shop"))).toBe("2");
      expect(entries.get("tenants.empty")).toEqual(new Uint8Array());
      expect(entries.get("a.b.c.d")).toEqual(new Uint8Array(LIMITS.stateValueBytes).fill(7));
      expect(lastSeq).toBe(4n);
    });

    test("S2: a writer with an old sequence is refused and told so", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      await using peer = await backend.openPeer(store);
      const seq = await store.state.append("a", bytes("1"), 0n);
      const stale = await peer.state.append("b", bytes("1"), 0n).catch((error: unknown) => error);
      expect(stale).toBeInstanceOf(StaleWriterError);
      expect(stale).toMatchObject({ expectedLastSeq: 0n, actualLastSeq: seq });
      await expect(peer.state.append("b", bytes("1"), seq + 5n)).rejects.toBeInstanceOf(StaleWriterError);
      expect([...(await peer.state.load()).entries.keys()]).toEqual(["a"]);
      await peer.state.append("b", bytes("1"), seq);
    });

    test("the same append again is answered with its sequence, a different one is refused", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const seq = await store.state.append("a", bytes("1"), 0n);
      expect(await store.state.append("a", bytes("1"), 0n)).toBe(seq);
      await expect(store.state.append("a", bytes("2"), 0n)).rejects.toBeInstanceOf(StaleWriterError);
      const gone = await store.state.append("a", null, seq);
      expect(await store.state.append("a", null, seq)).toBe(gone);
      const next = await store.state.append("b", bytes("1"), gone);
      expect((await store.state.load()).lastSeq).toBe(next);
    });

    test("removed keys are gone, can come back, and leave nothing behind", async () => {
      await using backend = await startBackend(kind);
      let seq = 0n;
      {
        await using store = await backend.open();
        seq = await store.state.append("a", bytes("1"), seq);
        seq = await store.state.append("a", null, seq);
        seq = await store.state.append("never-there", null, seq);
        expect((await store.state.load()).entries.size).toBe(0);
        seq = await store.state.append("a", bytes("2"), seq);
        seq = await store.state.append("b", bytes("1"), seq);
        seq = await store.state.append("b", null, seq);
      }
      await using store = await backend.open();
      const { entries, lastSeq } = await store.state.load();
      expect([...entries.keys()]).toEqual(["a"]);
      expect(lastSeq).toBe(seq);
      seq = await store.state.append("b", bytes("2"), seq);
      expect(text((await store.state.load()).entries.get("b"))).toBe("2");
    });

    test("random appends, removals, retries and stale writers agree with a map", async () => {
      await using backend = await startBackend(kind);
      const random = seeded(`${kind} state model`);
      const model = new Map<string, string>();
      let seq = 0n;
      let last: { key: string; value: Uint8Array | null; before: bigint } | undefined;
      for (let session = 0; session < 3; session++) {
        await using store = await backend.open();
        last = undefined;
        for (let step = 0; step < 120; step++) {
          const key = `k.${random.int(6)}`;
          const value = random.int(3) === 0 ? null : bytes(String(random.int(4)));
          const action = random.int(10);
          if (action === 0 && last !== undefined) {
            expect(await store.state.append(last.key, last.value, last.before)).toBe(seq);
          } else if (action === 1 && seq > 0n) {
            const stale = store.state.append("z", bytes("stale"), BigInt(random.int(Number(seq))));
            await expect(stale).rejects.toBeInstanceOf(StaleWriterError);
          } else if (action === 2) {
            const { entries, lastSeq } = await store.state.load();
            expect(lastSeq).toBe(seq);
            expect(new Map([...entries].map(([k, v]) => [k, text(v)]))).toEqual(new Map(model));
          } else {
            last = { key, value, before: seq };
            seq = await store.state.append(key, value, seq);
            if (value === null) model.delete(key);
            else model.set(key, text(value)!);
          }
        }
      }
    }, 20_000);

    test("refuses what is over a bound", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      for (const key of ["", "a.", "a.b.c.d.e", "a*", "a b", "x".repeat(129), "epoch"]) {
        await expect(store.state.append(key, bytes("1"), 0n), key).rejects.toBeInstanceOf(StoreInputError);
      }
      const large = new Uint8Array(LIMITS.stateValueBytes + 1);
      await expect(store.state.append("a", large, 0n)).rejects.toBeInstanceOf(StoreInputError);
      await expect(store.state.append("a", large, -1n)).rejects.toBeInstanceOf(StoreInputError);
      expect((await store.state.load()).lastSeq).toBe(0n);
    });
  });

  describe(`${kind}: lease`, () => {
    test("one holder at a time; the next waits, then leads with a higher epoch", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      await using peer = await backend.openPeer(store);
      const signal = AbortSignal.timeout(10_000);
      const first = await store.acquireLease({ holder: "one", address: "one:1", signal });
      expect(first.lost.aborted).toBe(false);
      expect(first.held).toBe(true);
      const { lastSeq, epoch } = await store.state.load();
      expect(epoch).toBe(first.epoch);
      const seq = await store.state.append("a", bytes("1"), lastSeq);

      const waiting: unknown[] = [];
      let got = false;
      const second = peer.acquireLease({
        holder: "two",
        address: "two:1",
        signal,
        onWaiting: (now) => waiting.push(now),
      });
      void second.then(() => {
        got = true;
      });
      await eventually(() => waiting.length > 0);
      expect(waiting[0]).toMatchObject({ holder: "one", address: "one:1", epoch: first.epoch });
      expect(got).toBe(false);

      await first.release();
      const lease = await second;
      expect(lease.epoch).toBeGreaterThan(first.epoch);
      expect(first.lost.aborted).toBe(false); // given up, not lost
      expect([first.held, lease.held]).toEqual([false, true]);
      // S2: sealed before the new holder has written anything.
      await expect(store.state.append("a", bytes("2"), seq)).rejects.toBeInstanceOf(StaleWriterError);
      const loaded = await peer.state.load();
      expect(loaded.epoch).toBe(lease.epoch);
      expect(text(loaded.entries.get("a"))).toBe("1");
      await peer.state.append("a", bytes("3"), loaded.lastSeq);
    });

    test("two callers of one store take turns, and one who gives up waiting is out", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const signal = AbortSignal.timeout(10_000);
      const ask = (more: AbortSignal = signal) =>
        store.acquireLease({ holder: "me", address: "me:1", signal: more });
      const first = await ask();
      const impatient = new AbortController();
      const gone = ask(impatient.signal);
      const third = ask();
      impatient.abort(new Error("enough"));
      await expect(gone).rejects.toThrow("enough");
      expect(await Promise.race([third, Bun.sleep(50).then(() => "waits")])).toBe("waits");
      await first.release();
      await first.release();
      const lease = await third;
      expect(lease.epoch).toBeGreaterThan(first.epoch);
      await lease.release();
    });

    test("the epoch rises over reopenings and above what agents report", async () => {
      await using backend = await startBackend(kind);
      const epochs: bigint[] = [];
      for (const atLeast of [undefined, undefined, 1000n, undefined, 5n]) {
        await using store = await backend.open();
        const lease = await store.acquireLease({
          holder: "me",
          address: "me:1",
          atLeast,
          signal: AbortSignal.timeout(5000),
        });
        epochs.push(lease.epoch);
        await lease.release();
      }
      expect(epochs).toEqual([1n, 2n, 1001n, 1002n, 1003n]);
    });

    test("closing the store loses a lease that is still held", async () => {
      await using backend = await startBackend(kind);
      const store = await backend.open();
      const lease = await store.acquireLease({
        holder: "me",
        address: "me:1",
        signal: AbortSignal.timeout(5000),
      });
      await store.close();
      expect(lease.lost.reason).toBeInstanceOf(LeaseLostError);
      expect(lease.held).toBe(false);
    });
  });

  describe(`${kind}: blobs`, () => {
    test("round trip of any size, listed, deleted", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const large = crypto.getRandomValues(new Uint8Array(65536));
      const parts = Array.from({ length: 70 }, () => large);
      await store.blobs.put("large", chunks(...parts));
      await store.blobs.put("empty", chunks());
      await store.blobs.put("with-empty-chunks", chunks(bytes("a"), new Uint8Array(), bytes("b")));
      const found = await collect(store.blobs.get("large"));
      expect(Bun.hash(found)).toBe(Bun.hash(Buffer.concat(parts)));
      expect(await collect(store.blobs.get("empty"))).toEqual(new Uint8Array());
      expect(text(await collect(store.blobs.get("with-empty-chunks")))).toBe("ab");
      expect([...(await store.blobs.list())].sort((a, b) => a.name.localeCompare(b.name))).toEqual([
        { name: "empty", size: 0 },
        { name: "large", size: 70 * 65536 },
        { name: "with-empty-chunks", size: 2 },
      ]);
      await store.blobs.delete("large");
      await store.blobs.delete("large");
      expect(await store.blobs.has("large")).toBe(false);
      expect(await store.blobs.list()).toHaveLength(2);
    });

    test("an existing name is left alone, its bytes unread; a missing one is not found", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      await store.blobs.put("b", chunks(bytes("first")));
      let read = false;
      await store.blobs.put(
        "b",
        (async function* () {
          read = true;
          yield bytes("second");
        })(),
      );
      expect(read).toBe(false);
      expect(text(await collect(store.blobs.get("b")))).toBe("first");
      await expect(collect(store.blobs.get("missing"))).rejects.toBeInstanceOf(BlobNotFoundError);
      expect(await store.blobs.has("missing")).toBe(false);
    });

    test("a put that fails or goes on is not visible, and can be done again", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      const failing = async function* () {
        yield new Uint8Array(300_000);
        expect(await store.blobs.has("b")).toBe(false);
        expect(await store.blobs.list()).toEqual([]);
        throw new Error("the upload broke off");
      };
      await expect(store.blobs.put("b", failing())).rejects.toThrow("the upload broke off");
      expect(await store.blobs.has("b")).toBe(false);

      const stop = new AbortController();
      const cancelled = async function* () {
        yield new Uint8Array(10);
        stop.abort(new Error("cancelled"));
        yield new Uint8Array(10);
      };
      await expect(store.blobs.put("b", cancelled(), stop.signal)).rejects.toThrow("cancelled");
      expect(await store.blobs.list()).toEqual([]);
      await store.blobs.put("b", chunks(bytes("whole")));
      expect(text(await collect(store.blobs.get("b")))).toBe("whole");
    });

    test("refuses names that are paths", async () => {
      await using backend = await startBackend(kind);
      await using store = await backend.open();
      for (const name of ["", ".", "..", "../x", "a/b", ".hidden", "x".repeat(129), "a\0b"]) {
        await expect(store.blobs.put(name, chunks()), name).rejects.toBeInstanceOf(StoreInputError);
        await expect(collect(store.blobs.get(name)), name).rejects.toBeInstanceOf(StoreInputError);
        await expect(store.blobs.delete(name), name).rejects.toBeInstanceOf(StoreInputError);
      }
    });
  });

  describe(`${kind}: store`, () => {
    test("answers a ping, and after closing refuses everything", async () => {
      await using backend = await startBackend(kind);
      const store = await backend.open();
      await store.ping();
      const reading = readSome(store.journal, 1);
      await store.close();
      await store.close();
      expect(await reading).toEqual([]);
      await expect(store.ping()).rejects.toBeInstanceOf(StoreUnavailableError);
      await expect(store.journal.append([record(1)])).rejects.toBeInstanceOf(StoreUnavailableError);
      await expect(store.state.append("a", bytes("1"), 0n, { deadlineMs: 200 })).rejects.toBeInstanceOf(
        StoreUnavailableError,
      );
      await expect(store.state.load({ deadlineMs: 200 })).rejects.toBeInstanceOf(StoreUnavailableError);
    });
  });
}
