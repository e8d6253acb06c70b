/** What only the embedded store does: the directory's lock, its files, its schema, its retention. */

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  openEmbeddedJournalReader,
  openEmbeddedStore,
  openStore,
  StoreInputError,
  StoreLockedError,
  StoreMismatchError,
} from "@warren/store";
import {
  bytes,
  chunks,
  eventually,
  readAll,
  readSome,
  record,
  records,
  startChild,
  temporaryDirectory,
} from "./harness.ts";

describe("the directory", () => {
  test("is refused to a second opener, by name and with what to do; free again after close", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    {
      await using _store = await openEmbeddedStore({ directory });
      for (let attempt = 0; attempt < 3; attempt++) {
        const error = await openEmbeddedStore({ directory }).catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(StoreLockedError);
        expect((error as Error).message).toContain(directory);
        expect((error as Error).message).toContain(`pid ${process.pid}`);
        expect((error as Error).message).toContain("stop that one first");
      }
    }
    await using _again = await openEmbeddedStore({ directory });
  });

  test("is refused while another process has it, and free as soon as that is killed with -9", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    const child = startChild("opener.ts", { directory });
    await child.line(/^open/);
    const error = await openEmbeddedStore({ directory }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StoreLockedError);
    expect((error as Error).message).toContain(`pid ${child.pid}`);
    await child.kill9();
    await using _store = await openEmbeddedStore({ directory });
  });

  test("and everything in it is its owner's only", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    await using store = await openEmbeddedStore({ directory });
    await store.journal.append([record(1)]);
    await store.blobs.put("b", chunks(bytes("x")));
    const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
    expect(mode(directory)).toBe("700");
    expect(mode(join(directory, "blobs"))).toBe("700");
    const files = readdirSync(directory).filter((name) => name !== "blobs");
    expect(files).toContain("cluster.db-wal");
    for (const name of files) expect(mode(join(directory, name)), name).toBe("600");
    expect(mode(join(directory, "blobs", "b"))).toBe("600");
  });
});

describe("the database", () => {
  test("of a newer version, another cell or somebody else is refused and left as it is", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    await (await openEmbeddedStore({ directory, cell: "east" })).close();
    const path = join(directory, "cluster.db");

    const cell = await openEmbeddedStore({ directory, cell: "west" }).catch((reason: unknown) => reason);
    expect(cell).toBeInstanceOf(StoreMismatchError);
    expect((cell as Error).message).toContain('"east", not "west"');

    const db = new Database(path);
    db.run("PRAGMA user_version = 99");
    db.close();
    const newer = await openEmbeddedStore({ directory, cell: "east" }).catch((reason: unknown) => reason);
    expect(newer).toBeInstanceOf(StoreMismatchError);
    expect((newer as Error).message).toContain("version 99");
    await expect(readSome(openEmbeddedJournalReader({ directory }), 1)).rejects.toBeInstanceOf(
      StoreMismatchError,
    );

    const foreign = join(temporary.path, "foreign");
    mkdirSync(foreign);
    const other = new Database(join(foreign, "cluster.db"), { create: true });
    other.run("CREATE TABLE theirs (x)");
    other.close();
    await expect(openEmbeddedStore({ directory: foreign })).rejects.toBeInstanceOf(StoreMismatchError);
    await expect(openEmbeddedStore({ directory: foreign, cell: "No Cell" })).rejects.toBeInstanceOf(
      StoreInputError,
    );
  });

  test("keeps at most the journal's bounds, and never gives a sequence twice", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    {
      await using store = await openStore({ directory, cell: "main", eventsMaxCount: 100 });
      await store.journal.append(records(0, 2000));
      // Trimming comes in steps after appends.
      let n = 2000;
      await eventually(async () => {
        await store.journal.append([record(n++)]);
        return (await readAll(store)).length <= 100;
      });
      expect((await readAll(store)).at(-1)?.id).toBe(record(n - 1).id);
    }
    let newest = 0n;
    {
      await using store = await openEmbeddedStore({ directory });
      newest = (await readAll(store)).at(-1)!.seq;
    }
    await using store = await openStore({ directory, cell: "main", eventsMaxAgeMs: 1 });
    let n = 5000;
    await eventually(async () => {
      await store.journal.append([record(n++)]);
      return (await readAll(store)).length < 10;
    });
    for (const { seq } of await readAll(store)) expect(seq).toBeGreaterThan(newest);
  });
});

describe("a reader of another process", () => {
  test("starts before there is a database, also from the end, and misses nothing of it", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    await using reader = openEmbeddedJournalReader({ directory });
    const all = readSome(reader, 5);
    const end = readSome(reader, 5, { after: "end" });
    await using store = await openEmbeddedStore({ directory });
    await store.journal.append(records(0, 5));
    const ids = records(0, 5).map(({ id }) => id);
    expect((await all).map(({ id }) => id)).toEqual(ids);
    expect((await end).map(({ id }) => id)).toEqual(ids);
  });

  test("goes on over the writer's end and return, without the writer and from where it was", async () => {
    using temporary = temporaryDirectory();
    const directory = join(temporary.path, "state");
    await using reader = openEmbeddedJournalReader({ directory });
    const stop = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const batch of reader.read({ signal: stop.signal }))
        seen.push(...batch.records.map(({ id }) => id));
    })();
    for (let round = 0; round < 3; round++) {
      await using store = await openEmbeddedStore({ directory });
      await store.journal.append(records(round * 10, round * 10 + 10));
    }
    await eventually(() => seen.length === 30);
    stop.abort();
    await reading;
    expect(seen).toEqual(records(0, 30).map(({ id }) => id));
    const found = await readSome(reader, 30); // nobody has the store open now
    expect(found).toHaveLength(30);
    expect(await readSome(reader, 5, { after: found[24]!.seq })).toHaveLength(5);
  });

  test("ends when it is disposed of", async () => {
    using temporary = temporaryDirectory();
    const reader = openEmbeddedJournalReader({ directory: temporary.path });
    const reading = readSome(reader, 1);
    await reader[Symbol.asyncDispose]();
    expect(await reading).toEqual([]);
  });
});

test("partial blobs of a process that was killed are removed at the next opening", async () => {
  using temporary = temporaryDirectory();
  const directory = join(temporary.path, "state");
  await (await openStore({ directory, cell: "main" })).close();
  writeFileSync(join(directory, "blobs", ".partial-left-over"), "x");
  await using store = await openStore({ directory, cell: "main" });
  expect(readdirSync(join(directory, "blobs"))).toEqual([]);
  expect(await store.blobs.list()).toEqual([]);
});

test("a blob over the bound is refused and leaves nothing", async () => {
  using temporary = temporaryDirectory();
  await using store = await openEmbeddedStore({ directory: temporary.path, maxBlobBytes: 1000 });
  await expect(store.blobs.put("b", chunks(new Uint8Array(600), new Uint8Array(600)))).rejects.toBeInstanceOf(
    StoreInputError,
  );
  expect(readdirSync(join(temporary.path, "blobs"))).toEqual([]);
  await store.blobs.put("b", chunks(new Uint8Array(500), new Uint8Array(500)));
});
