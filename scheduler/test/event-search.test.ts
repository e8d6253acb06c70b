/** The last events that somebody wants, found from the end of a real journal. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { decodeEvent, encodeEvent } from "@warren/common/cloudevents";
import { type Event, NodeChangedSchema, ReleaseDeployedSchema } from "@warren/proto/common";
import { openEmbeddedStore, type ReadOptions, type Store } from "@warren/store";
import { lastEvents, type Search, untilQuiet } from "../src/event-search.ts";

let directory: string;
let store: Store;
let head: bigint;
const count = 12_000;
const began = Date.UTC(2026, 10, 30);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-search-"));
  store = await openEmbeddedStore({ directory });
  const records = Array.from({ length: count }, (_, i) =>
    encodeEvent({
      id: `s:i:${i + 1}`,
      source: "s",
      time: began + i * 1_000,
      tenant: i % 4_000 === 0 ? "rare" : i % 2 === 0 ? "a" : "",
      payload:
        i % 2 === 0
          ? { case: "release", value: create(ReleaseDeployedSchema, { tenant: "a", release: `${i}` }) }
          : { case: "node", value: create(NodeChangedSchema, { node: `n${i}` }) },
    }),
  );
  for (let i = 0; i < records.length; i += 1_000) await store.journal.append(records.slice(i, i + 1_000));
  head = await store.journal.lastSeq();
});

afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

/** @returns numbers of the events that were found, and how many records were read */
async function search(wanted: Partial<Search>): Promise<{ found: number[]; read: number }> {
  let read = 0;
  const journal = {
    async *read(options: ReadOptions) {
      for await (const batch of store.journal.read(options)) {
        read += batch.records.length;
        yield batch;
      }
    },
  };
  const options = {
    head,
    after: 0n,
    most: 5,
    since: 0,
    read: (record: Parameters<typeof decodeEvent>[0] & { seq: bigint }): Event =>
      decodeEvent(record, record.seq),
    isWanted: () => true,
    ...wanted,
  };
  const events = await lastEvents(journal, options, new AbortController().signal);
  return { found: events.map(({ id }) => Number(id.split(":")[2])), read };
}

test("the newest come in order, and of a long journal little is read", async () => {
  const { found, read } = await search({});
  expect(found).toEqual([11_996, 11_997, 11_998, 11_999, 12_000]);
  expect(read).toBeLessThan(1_300);
});

test("rare ones are found further back, each once", async () => {
  const isRare = ({ tenant }: Event) => tenant === "rare";
  expect((await search({ isWanted: isRare })).found).toEqual([1, 4_001, 8_001]);
  expect((await search({ isWanted: isRare, most: 2 })).found).toEqual([4_001, 8_001]);
  expect((await search({ isWanted: isRare, after: 4_001n })).found).toEqual([8_001]);
});

test("none beyond the head, none of an empty part, none asked for", async () => {
  expect((await search({ head: 3n, most: 2 })).found).toEqual([2, 3]);
  expect((await search({ head: 3n, after: 3n })).found).toEqual([]);
  expect((await search({ most: 0 })).found).toEqual([]);
});

test("what was stored long before the moment is not read", async () => {
  const { found, read } = await search({
    most: 10_000,
    since: Date.now() + 3_600_000,
    isWanted: () => false,
  });
  expect(found).toEqual([]);
  expect(read).toBeLessThan(1_300);
});

test("a journal whose records are gone is not waited for", async () => {
  const signal = new AbortController().signal;
  let batches = 0;
  // As after its retention has removed all up to the head: nothing comes, and more may.
  for await (const _ of untilQuiet(store.journal, head, signal, 50)) batches++;
  expect(batches).toBe(0);
  let records = 0;
  for await (const batch of untilQuiet(store.journal, head - 3n, signal, 50)) records += batch.records.length;
  expect(records).toBe(3);
});
