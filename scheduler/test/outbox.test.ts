import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { encodeEvent } from "@warren/common/cloudevents";
import { createLogger } from "@warren/common/log";
import { waitUntil } from "@warren/common/time";
import { NodeChange, NodeChangedSchema, TransitionSchema } from "@warren/proto/common";
import { type Journal, type JournalRecord, StoreInputError, StoreUnavailableError } from "@warren/store";
import { Outbox } from "../src/outbox.ts";
import { Publisher } from "../src/publisher.ts";

const log = createLogger({ process: "scheduler", level: "silent" });
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "warren-outbox-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Takes what it is given while it is up. */
class FlakyJournal implements Pick<Journal, "append"> {
  readonly stored: JournalRecord[] = [];
  up = true;

  async append(records: readonly JournalRecord[]): Promise<void> {
    if (!this.up) throw new StoreUnavailableError("away");
    if (records.some(({ id }) => id.includes(" "))) throw new StoreInputError("an id with a space");
    this.stored.push(...records);
  }

  get ids(): string[] {
    return this.stored.map(({ id }) => id);
  }
}

const open = (journal: FlakyJournal, bound?: number) =>
  new Outbox({ journal, path: join(directory, "events"), log, bound });
const publisher = (outbox: Outbox, epoch: bigint) =>
  new Publisher(outbox, { source: "s", epoch, style: { cell: "c", format: "json" } });
const node = {
  tenant: "",
  payload: { case: "node" as const, value: create(NodeChangedSchema, { node: "n", change: NodeChange.UP }) },
};
const transition = {
  tenant: "a",
  payload: { case: "transition" as const, value: create(TransitionSchema, { instance: { tenant: "a" } }) },
};
const event = (more: object) => ({ type: "event" as const, ...node, ...more });
const drained = (outbox: Outbox) => waitUntil(() => outbox.size === 0, { deadlineMs: 5_000 });

test("an event that comes just as the last one is stored does not wait for the next one", async () => {
  const journal = new FlakyJournal();
  const outbox = open(journal);
  const { publish } = bound(publisher(outbox, 1n));
  const pass = async (turns: number) => {
    for (let i = 0; i < turns; i++) await Promise.resolve();
  };
  // At each of the turns that the end of a batch takes.
  for (let turns = 0; turns < 12; turns++) {
    publish();
    await pass(turns);
    publish();
    await pass(100);
    expect(journal.stored).toHaveLength(2 * (turns + 1));
  }
  await outbox.stop(100);
});

const bound = (one: Publisher) => ({ publish: (more: object = {}) => one.publish(event(more), 0) });

describe("rule 8: what the journal does not have yet is kept on disk", () => {
  test("the next process sends it, in order, under the same ids; what was stored is not sent again", async () => {
    const journal = new FlakyJournal();
    const first = open(journal);
    const one = bound(publisher(first, 3n));
    one.publish();
    await drained(first);
    journal.up = false;
    for (let i = 0; i < 100; i++) one.publish();
    // As after kill -9: nothing is stopped.
    journal.up = true;
    const next = open(journal);
    await drained(next);
    bound(publisher(next, 4n)).publish();
    await drained(next);
    await Promise.all([first.stop(0), next.stop(0)]);
    const ids = [...Array.from({ length: 101 }, (_, i) => `s:3:${i + 1}`), "s:4:1"];
    // The first one, which lives on in this test, may have sent its own again.
    expect([...new Set(journal.ids)]).toEqual(ids);
    const last = open(journal);
    expect(last.size).toBe(0);
    await last.stop(0);
  });

  test("protobuf survives the file, and so do the headers", async () => {
    const journal = new FlakyJournal();
    journal.up = false;
    const first = open(journal);
    const record = encodeEvent(
      { id: "x:1:1", source: "s", time: 0, ...transition },
      { cell: "c", format: "protobuf" },
    );
    first.publish(record);
    await first.stop(0);
    journal.up = true;
    const next = open(journal);
    await drained(next);
    await next.stop(0);
    expect(journal.stored.map((one) => ({ ...one, data: [...one.data] }))).toEqual([
      { ...record, data: [...record.data] },
    ]);
  });

  test("an event with an id of its own keeps it, and leaves no gap", async () => {
    const journal = new FlakyJournal();
    const outbox = open(journal);
    const { publish } = bound(publisher(outbox, 1n));
    for (const id of [undefined, "node-lost:x:1", undefined]) publish({ id });
    await drained(outbox);
    await outbox.stop(0);
    expect(journal.ids).toEqual(["s:1:1", "node-lost:x:1", "s:1:2"]);
  });
});

describe("rule 9", () => {
  test("over the bound the oldest decisions go and are counted, transitions never", async () => {
    const journal = new FlakyJournal();
    journal.up = false;
    const first = open(journal, 20);
    const { publish } = bound(publisher(first, 1n));
    for (let i = 0; i < 15; i++) publish(transition);
    for (let i = 0; i < 15; i++) publish();
    expect([first.size, first.dropped]).toEqual([20, 10]);
    for (let i = 0; i < 15; i++) publish(transition);
    expect([first.size, first.dropped]).toEqual([30, 15]);
    await first.stop(0);
    journal.up = true;
    const next = open(journal, 20);
    await drained(next);
    await next.stop(0);
    expect(journal.stored.every(({ headers }) => headers["ce-type"] === "dev.warren.transition")).toBe(true);
    expect(journal.stored).toHaveLength(30);
  });

  test("the file does not grow while everything is stored", async () => {
    const journal = new FlakyJournal();
    const outbox = open(journal);
    const { publish } = bound(publisher(outbox, 1n));
    for (let i = 0; i < 50; i++) {
      for (let n = 0; n < 100; n++) publish();
      await drained(outbox);
    }
    await outbox.stop(0);
    expect(journal.ids).toHaveLength(5_000);
    expect(statSync(join(directory, "events")).size).toBeLessThan(1_500_000);
    expect(statSync(join(directory, "events")).mode & 0o777).toBe(0o600);
  });

  test("one that the journal will never take is dropped, counted, and keeps nobody waiting", async () => {
    const journal = new FlakyJournal();
    const outbox = open(journal);
    const { publish } = bound(publisher(outbox, 1n));
    for (const id of ["a:1:1", "not an id", "a:1:2"]) publish({ id });
    await drained(outbox);
    await outbox.stop(0);
    expect([journal.ids, outbox.dropped]).toEqual([["a:1:1", "a:1:2"], 1]);
  });
});
