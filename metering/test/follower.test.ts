/** Following through trouble: a reader that fails, a position that is of another journal, a stop in the middle. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { systemClock, waitUntil } from "@warren/common/time";
import type { JournalReader, StoredRecord } from "@warren/store";
import { windowOf } from "../src/core/window.ts";
import { Follower } from "../src/follower.ts";
import { SqliteLedger } from "../src/ledger/sqlite/ledger.ts";
import { type MeteringMetrics, meteringMetrics } from "../src/metrics.ts";
import { resumeAt } from "../src/resume.ts";
import { hour, instanceId, stored, ten, usageAt } from "./events.ts";
import { deadlineMs, silent, temporaryDirectory } from "./harness.ts";

const source = "test";
const shop = { tenant: "shop", instance: instanceId(1) };
const records = (count: number, name = "s") =>
  Array.from({ length: count }, (_, n) =>
    usageAt(shop, ten, { cpuUs: BigInt(n + 1) }, `n1:${name}:${n + 1}`),
  );

let temporary: ReturnType<typeof temporaryDirectory>;
let ledger: SqliteLedger;
beforeEach(() => {
  temporary = temporaryDirectory();
  ledger = SqliteLedger.open(temporary.path);
});
afterEach(async () => {
  await ledger.close();
  temporary[Symbol.dispose]();
});

/** A journal in memory. */
class MemoryJournal implements JournalReader {
  readonly acked: bigint[] = [];
  readonly reads: bigint[] = [];
  /** Times that reading was begun to follow, not to look. */
  followed = 0;
  failures = 0;

  constructor(
    public records: StoredRecord[],
    readonly onAck: () => Promise<void> = async () => {},
  ) {}

  async *read({ after, batch = 256, durable, signal }: Parameters<JournalReader["read"]>[0]) {
    if (this.failures-- > 0) throw new Error("away");
    let at = after as bigint;
    this.reads.push(at);
    if (durable) this.followed++;
    while (!signal.aborted) {
      const page = this.records.filter(({ seq }) => seq > at).slice(0, batch);
      at = page.at(-1)?.seq ?? at;
      if (page.length > 0) {
        yield {
          records: page,
          pending: this.records.filter(({ seq }) => seq > at).length,
          ack: async () => {
            await this.onAck();
            this.acked.push(at);
          },
        };
      } else await new Promise((turn) => setImmediate(turn));
    }
  }
}

function follow(
  reader: JournalReader,
  of = ledger,
  { quietMs, metrics = meteringMetrics(of, source) }: { quietMs?: number; metrics?: MeteringMetrics } = {},
) {
  return Follower.start({
    reader,
    ledger: of,
    source,
    metrics,
    clock: systemClock,
    log: silent,
    random: () => 0,
    lookMs: 100,
    quietMs,
  });
}

const counted = async () =>
  (await ledger.usage({ window: windowOf(undefined, undefined), cut: "total", limit: 1 }))[0]?.used.cpuUs;
const countedIs = (value: bigint) => waitUntil(async () => (await counted()) === value, { deadlineMs });
const positionIs = (value: bigint) =>
  waitUntil(async () => (await ledger.position(source))?.seq === value, { deadlineMs });

test("rule 8: a journal that fails is tried again from where the ledger stands", async () => {
  const journal = new MemoryJournal(stored(records(3)));
  journal.failures = 2;
  await using _ = follow(journal);
  await countedIs(3n);
  expect(journal.reads).toEqual([0n]);
});

test("rule 9: what is old is folded between batches, which counting does not wait for", async () => {
  const day = 24 * hour;
  const told = Array.from({ length: 60 }, (_, n) => {
    const at = ten + n * day;
    const one = { tenant: "shop", instance: instanceId(n, at) };
    return stored([usageAt(one, at, { cpuUs: 1n })], { storedAt: at, after: n })[0]!;
  });
  const journal = new MemoryJournal(told.slice(0, 30));
  let failing = 1;
  const flaky = new Proxy(ledger, {
    get(target, name) {
      if (name === "fold" && failing-- > 0) throw new Error("disk full");
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const metrics = meteringMetrics(ledger, source);
  await using _ = follow(journal, flaky, { metrics });
  await positionIs(30n);
  journal.records = told;
  await waitUntil(
    async () => /^warren_metering_folded_accounts_total 1[5-9]$/m.test(await metrics.registry.metrics()),
    { deadlineMs },
  );
  expect(await metrics.registry.metrics()).toMatch(/^warren_metering_failures_total 1$/m);
  expect(await counted()).toBe(60n);
  expect(journal.followed).toBe(1);
});

test("rule 8: a commit that fails is tried again, and nothing is acknowledged before", async () => {
  const journal = new MemoryJournal(stored(records(3)));
  let failing = 2;
  const flaky = new Proxy(ledger, {
    get(target, name) {
      if (name === "count" && failing-- > 0) {
        expect(journal.acked).toEqual([]);
        throw new Error("disk full");
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  await using _ = follow(journal, flaky);
  await countedIs(3n);
  await waitUntil(() => journal.acked.length > 0, { deadlineMs });
  expect(journal.acked).toEqual([3n]);
});

test("while the ledger takes nothing the lag shows what waits, and for how long", async () => {
  const journal = new MemoryJournal(stored(records(2)));
  let away = false;
  const flaky = new Proxy(ledger, {
    get(target, name) {
      if (name === "count" && away) throw new Error("away");
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  let now = ten;
  const clock = { now: () => now, monotonic: () => performance.now() };
  const metrics = meteringMetrics(flaky, source, clock);
  const shown = async (name: string) =>
    Number(new RegExp(`^warren_metering_${name} (.*)$`, "m").exec(await metrics.registry.metrics())?.[1]);
  await using _ = follow(journal, flaky, { metrics });
  await positionIs(2n);
  expect(await shown("lag_records")).toBe(0);
  away = true;
  journal.records = stored(records(5));
  await waitUntil(async () => (await shown("lag_records")) === 3, { deadlineMs });
  now = journal.records.at(-1)!.storedAt + 3_600_000;
  expect(await shown("lag_seconds")).toBe(3_600);
  away = false;
  await positionIs(5n);
  await waitUntil(async () => (await shown("lag_records")) === 0, { deadlineMs });
});

test("rule 8: an acknowledgement that fails loses nothing", async () => {
  const journal = new MemoryJournal(stored(records(2)), () => Promise.reject(new Error("lost")));
  await using _ = follow(journal);
  await countedIs(2n);
  journal.records = stored(records(4));
  await countedIs(4n);
});

test("stopping finishes the batch in hand", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const journal = new MemoryJournal(stored(records(2)), () => held);
  const follower = follow(journal);
  await countedIs(2n);
  const stopped = follower.stop();
  expect(journal.acked).toEqual([]);
  release();
  await stopped;
  expect(journal.acked).toEqual([2n]);
});

test("calls have their turn while a long journal is read", async () => {
  const journal = new MemoryJournal(stored(records(20_000)));
  await using _ = follow(journal);
  let turns = 0;
  while ((await counted()) !== 20_000n) {
    await new Promise((turn) => setImmediate(turn));
    turns++;
  }
  expect(turns).toBeGreaterThan(10);
});

test("rule 8: another journal in the place of the one counted is counted from its beginning, once", async () => {
  await ledger.count(source, stored(records(9)));
  const journal = new MemoryJournal(stored(records(3, "other")));
  {
    await using _ = follow(journal);
    await positionIs(3n);
  }
  expect(await counted()).toBe(9n);
  expect(journal.reads).toEqual([0n, 8n, 0n]);
  journal.records = stored([...records(3, "other"), ...records(12).slice(11)]);
  await using _ = follow(journal);
  await countedIs(12n);
});

test("rule 8: a journal that is wiped and begun again under us is counted from its beginning", async () => {
  const journal = new MemoryJournal(stored(records(9)));
  await using _ = follow(journal, ledger, { quietMs: 50 });
  await countedIs(9n);
  journal.records = stored([usageAt(shop, ten, { cpuUs: 10n }, "n1:new:1")]);
  await countedIs(10n);
  await positionIs(1n);
});

test("a quiet journal is looked at again, and read on from where it was", async () => {
  const journal = new MemoryJournal(stored(records(3)));
  await using _ = follow(journal, ledger, { quietMs: 20 });
  await waitUntil(() => journal.reads.length > 4, { deadlineMs });
  expect(journal.followed).toBe(1);
  journal.records = stored(records(4));
  await countedIs(4n);
  expect(journal.acked).toEqual([3n, 4n]);
});

test.each([
  ["nothing counted yet: from the beginning", undefined, stored(records(3)), { after: 0n }],
  ["the same journal: behind the record counted last", 2, stored(records(3)), { after: 2n }],
  ["the oldest records are gone, ours not", 2, stored(records(3)).slice(1), { after: 2n }],
  ["all that was counted is gone, and nothing more", 2, stored(records(3)).slice(2), { after: 2n }],
  [
    "some went before they were counted",
    2,
    stored(records(5)).slice(4),
    { after: 2n, warning: /up to 2 records/ },
  ],
  ["another record at the same place", 2, stored(records(3, "x")), { after: 0n, warning: /another record/ }],
  ["the journal is shorter", 9, stored(records(3)), { after: 0n, warning: /ends before 9/ }],
] as const)("resuming: %s", async (_, seq, content, { after, ...rest }) => {
  const warning = "warning" in rest ? rest.warning : /^$/;
  const position = seq === undefined ? undefined : { seq: BigInt(seq), recordId: `n1:s:${seq}` };
  const reader = new MemoryJournal([...content]);
  const resume = await resumeAt({ reader, position, signal: AbortSignal.timeout(deadlineMs), lookMs: 50 });
  expect(resume.after).toBe(after);
  expect(resume.warning ?? "").toMatch(warning);
});

test("resuming waits for an empty journal, until it has a record or we stop", async () => {
  const reader = new MemoryJournal([]);
  const position = { seq: 9n, recordId: "n1:s:9" };
  const waiting = resumeAt({ reader, position, signal: AbortSignal.timeout(deadlineMs), lookMs: 20 });
  await waitUntil(() => reader.reads.length > 2, { deadlineMs });
  reader.records = stored(records(1));
  expect((await waiting).after).toBe(0n);
  const stop = new AbortController();
  const stopped = resumeAt({ reader: new MemoryJournal([]), position, signal: stop.signal, lookMs: 5_000 });
  stop.abort();
  expect((await stopped).after).toBe(9n);
});
