/** The whole process, against both journals, over TLS. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@warren/common/rpc/errors";
import { isQuick } from "@warren/common/testing/quick";
import { fromTimestamp, toTimestamp, waitUntil } from "@warren/common/time";
import { type GetUsageResponse, UsageWindow } from "@warren/proto/metering";
import { openStore, StoreLockedError, StoreMismatchError, StoreUnavailableError } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { ledgerPath } from "../src/ledger/sqlite/database.ts";
import { SqliteLedger } from "../src/ledger/sqlite/ledger.ts";
import { type MeteringOptions, startMetering } from "../src/metering.ts";
import { maxRows } from "../src/service.ts";
import { type JournalLocation, sourceOf } from "../src/source.ts";
import { hour, instanceId, nextId, stored, ten, transitionAt, usageAt } from "./events.ts";
import {
  type Cell,
  consumerWhen,
  createCell,
  deadlineMs,
  getUsage,
  type Journal,
  kinds,
  silent,
  startChild,
  startJournal,
  temporaryDirectory,
  usageWhen,
} from "./harness.ts";

let temporary: ReturnType<typeof temporaryDirectory>;
let cell: Cell;
let foreign: Cell;
let places = 0;
let instances = 0;

const freshDirectory = () => join(temporary.path, `state-${++places}`);
/** An instance of its own, so that tests can share a journal. */
const fresh = (tenant: string) => ({ tenant, instance: instanceId(++instances) });

beforeAll(async () => {
  temporary = temporaryDirectory();
  cell = await createCell(join(temporary.path, "cell"));
  foreign = await createCell(join(temporary.path, "foreign"), "foreign");
});
afterAll(() => temporary[Symbol.dispose]());

function start(location: JournalLocation, more: Partial<MeteringOptions> = {}) {
  return startMetering({
    stateDirectory: freshDirectory(),
    port: 0,
    credentials: cell.metering,
    log: silent,
    ...location,
    ...more,
  });
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Error);
  return error as Error;
}

const cpuOf = (answer: GetUsageResponse, tenant: string) =>
  answer.rows.filter((row) => row.tenant === tenant).reduce((sum, row) => sum + row.cpuUs, 0n);

describe.each(kinds)("with the %s journal", (kind) => {
  let journal: Journal;
  beforeAll(async () => {
    journal = await startJournal(kind);
  });
  afterAll(() => journal[Symbol.asyncDispose]());

  test("rule 8: GetUsage over TLS answers what the events say, cut as asked", async () => {
    const shop = fresh("shop");
    await journal.append([
      transitionAt(shop, ten, "STARTING", "READY"),
      usageAt(shop, ten + 1, { cpuUs: 100n, memoryByteSeconds: 2n ** 60n, wallMs: 1_000n, frozenMs: 10n }),
      usageAt(fresh("blog"), ten + 1, { cpuUs: 7n }),
    ]);
    await using metering = await start(journal.location);
    const ask = (request: object) => getUsage(metering.url, cell.client, request);
    await usageWhen(metering.url, cell.client, ({ journalSeq }) => journalSeq === 3n);
    // Reading goes on as events come.
    await journal.append([
      usageAt(shop, ten + hour, { cpuUs: 150n, wallMs: 4_000n }),
      transitionAt(shop, ten + 15 * hour, "READY", "EXITED", {
        usage: { cpuUs: 151n, wallMs: 5_000n, thaws: 3n },
      }),
    ]);
    const all = await usageWhen(metering.url, cell.client, ({ journalSeq }) => journalSeq === 5n);
    expect(all.rows.map(({ tenant }) => tenant)).toEqual(["blog", "shop"]);
    expect(all.rows[1]).toMatchObject({
      cpuUs: 151n,
      memoryByteSeconds: 2n ** 60n,
      wallMs: 5_000n,
      frozenMs: 10n,
      starts: 1n,
      instances: 1n,
    });
    expect(all.rows[1]?.start).toBeUndefined();

    const hours = await ask({ tenant: "shop", window: UsageWindow.HOUR });
    expect(
      hours.rows.map((row) => [fromTimestamp(row.start, 0), fromTimestamp(row.end, 0), row.cpuUs]),
    ).toEqual([
      [ten, ten + hour, 100n],
      [ten + hour, ten + 2 * hour, 50n],
      [ten + 15 * hour, ten + 16 * hour, 1n],
    ]);
    expect(hours.rows.map(({ starts, instances }) => [starts, instances])).toEqual([
      [1n, 1n],
      [0n, 1n],
      [0n, 1n],
    ]);
    const days = await ask({ tenant: "shop", window: UsageWindow.DAY });
    const midnight = ten - 10 * hour;
    expect(days.rows.map((row) => [fromTimestamp(row.start, 0), row.cpuUs])).toEqual([
      [midnight, 150n],
      [midnight + 24 * hour, 1n],
    ]);
    const months = await ask({ tenant: "shop", window: UsageWindow.MONTH });
    expect(months.rows).toMatchObject([
      { cpuUs: 151n, activeMs: 4_990n, thaws: 3n, requests: 0n, starts: 1n, instances: 1n },
    ]);
    expect(fromTimestamp(months.rows[0]?.start, 0)).toBe(Date.UTC(2026, 5));
    expect(fromTimestamp(months.rows[0]?.end, 0)).toBe(Date.UTC(2026, 6));
    const from = toTimestamp(ten + hour + 1_234); // cut to its hour
    const end = toTimestamp(ten + 15 * hour); // exclusive
    expect((await ask({ tenant: "shop", start: from, end })).rows.map((row) => row.cpuUs)).toEqual([50n]);
    expect((await ask({ tenant: "nobody" })).rows).toEqual([]);
  });

  test("rule 8: kill -9 between commit and acknowledgement, then a restart: the same totals", async () => {
    const tenant = `ack-${kind}`;
    const one = fresh(tenant);
    await journal.append([
      transitionAt(one, ten, "STARTING", "READY"),
      usageAt(one, ten, { cpuUs: 40n }),
      transitionAt(one, ten + 9, "READY", "EXITED", { usage: { cpuUs: 42n } }),
    ]);
    const stateDirectory = freshDirectory();
    await using child = startChild("die-before-ack.ts", { stateDirectory, ...journal.location });
    await child.exited;
    expect(child.signal()).toBe("SIGKILL");
    let position: bigint;
    {
      await using ledger = SqliteLedger.open(stateDirectory); // the lock died with its holder
      position = (await ledger.position(sourceOf(journal.location)))?.seq ?? 0n;
      expect(position).toBeGreaterThan(0n);
    }
    await using metering = await start(journal.location, { stateDirectory });
    await journal.append([transitionAt(fresh(tenant), ten, "STARTING", "READY", { usage: { cpuUs: 1n } })]);
    const answer = await usageWhen(metering.url, cell.client, (now) => cpuOf(now, tenant) === 43n);
    expect(answer.journalSeq).toBeGreaterThan(position);
    expect(answer.rows.find((row) => row.tenant === tenant)).toMatchObject({ starts: 2n, instances: 2n });
    if (journal.server) {
      // What it died without acknowledging, it acknowledges now.
      const last = Number(await journal.store.journal.lastSeq());
      await consumerWhen(journal.server.url, (info) => info.ack_floor.stream_seq === last);
    }
  });

  test("rule 8: kill -9 again and again while events come: the same totals", async () => {
    const tenant = `kill-${kind}`;
    const lives = [fresh(tenant), fresh(tenant), fresh(tenant)];
    const options = {
      stateDirectory: freshDirectory(),
      credentials: cell.meteringDirectory,
      ...journal.location,
    };
    let told = 0n;
    const tell = async (count: number) => {
      for (let n = 0; n < count; n++) {
        told += 10n;
        await journal.append(lives.map((one) => usageAt(one, ten + Number(told), { cpuUs: told })));
      }
    };
    for (let round = 0; round < 2; round++) {
      await using child = startChild("metering.ts", options);
      const url = await child.line();
      const before = told;
      const telling = tell(50);
      await usageWhen(url, cell.client, (answer) => cpuOf(answer, tenant) > 3n * before);
      await child.kill9();
      await telling;
    }
    await journal.append(
      lives.map((one) => transitionAt(one, ten + hour, "READY", "EXITED", { usage: { cpuUs: told + 1n } })),
    );
    await using metering = await start(journal.location, { stateDirectory: options.stateDirectory });
    const exact = (answer: GetUsageResponse) => cpuOf(answer, tenant) === 3n * (told + 1n);
    const { rows } = await usageWhen(metering.url, cell.client, exact, { tenant });
    expect(rows).toMatchObject([{ starts: 3n, instances: 3n }]);
  });

  test("an odd record is set aside, counted in the metrics, and stops nothing", async () => {
    const tenant = `odd-${kind}`;
    await journal.append([
      { ...usageAt(fresh(tenant), ten, { cpuUs: 1n }), data: new TextEncoder().encode("[") },
      usageAt(fresh(tenant), ten, { cpuUs: 2n ** 64n - 1n }),
      usageAt(fresh(tenant), ten, { cpuUs: 5n }),
    ]);
    await using metering = await start(journal.location);
    await usageWhen(metering.url, cell.client, (answer) => cpuOf(answer, tenant) === 5n);
    const text = await (
      await fetch(`${metering.url}/metrics`, {
        headers: { authorization: `Bearer ${cell.client.token}` },
        tls: { ca: cell.client.ca },
      })
    ).text();
    expect(text).toContain('warren_metering_quarantined_total{kind="unreadable"} 1');
    expect(text).toContain('warren_metering_quarantined_total{kind="usage-implausible"} 1');
    expect(text).toContain('warren_metering_events_total{type="unknown"} 1');
    expect(text).toMatch(/warren_metering_events_total{type="usage"} \d+/);
    expect(text).toMatch(/warren_metering_counted_seq [1-9]/);
    expect(text).toMatch(/warren_metering_lag_seconds \d/);
    expect(text).toMatch(/warren_metering_commit_seconds_count [1-9]/);
    expect(text).toContain("warren_metering_lag_records 0");
    expect(text).toMatch(/warren_metering_duplicates_total \d/);
    expect(text).toMatch(/warren_metering_missing \d/);
  });

  test("rule 8: a switch to another journal and back changes no total", async () => {
    const tenant = `switch-${kind}`;
    const one = fresh(tenant);
    const early = usageAt(one, ten, { cpuUs: 10n });
    await journal.append([early]);
    await using second = await startJournal("embedded");
    await second.append([early, usageAt(one, ten + 1, { cpuUs: 12n }, nextId())]);
    const stateDirectory = freshDirectory();
    const steps = [
      [journal.location, 10n],
      [second.location, 12n],
      [journal.location, 12n],
    ] as const;
    for (const [location, cpuUs] of steps) {
      await using metering = await start(location, { stateDirectory });
      const request = { tenant };
      const wanted = (now: GetUsageResponse) => cpuOf(now, tenant) === cpuUs && now.journalSeq > 0n;
      const { rows } = await usageWhen(metering.url, cell.client, wanted, request);
      expect(rows).toMatchObject([{ instances: 1n }]);
    }
  });
});

describe("rule 10: who may ask", () => {
  test("a client with its token, and nobody else", async () => {
    await using journal = await startJournal("embedded");
    await using metering = await start(journal.location);
    const refused = async (credentials: Cell["client"]) => {
      const error = await failure(getUsage(metering.url, credentials));
      expect(error).toBeInstanceOf(ConnectError);
      return error as ConnectError;
    };
    expect((await refused({ ca: cell.client.ca })).code).toBe(Code.Unauthenticated);
    const wrong = await refused({ ca: cell.client.ca, token: foreign.client.token });
    expect(wrong.code).toBe(Code.Unauthenticated);
    expect(wrong.message).toContain("not one of this cell");
    for (const role of [cell.gateway, cell.metering]) {
      const other = await refused(role);
      expect(other.code).toBe(Code.PermissionDenied);
      expect(other.message).toContain("GetUsage is for client");
    }
    expect((await getUsage(metering.url, cell.client)).rows).toEqual([]);
  });
});

describe("what cannot be answered says why", () => {
  let journal: Journal;
  let stateDirectory: string;
  let metering: Awaited<ReturnType<typeof start>>;
  beforeAll(async () => {
    journal = await startJournal("embedded");
    stateDirectory = freshDirectory();
    {
      await using ledger = SqliteLedger.open(stateDirectory);
      const manyAt = (n: number) => ({ tenant: "many", instance: instanceId(n, ten - n * hour) });
      for (let from = 0; from <= maxRows; from += 1_000) {
        const records = Array.from({ length: 1_000 }, (_, n) =>
          usageAt(manyAt(from + n), ten - (from + n) * hour, { cpuUs: 1n }),
        );
        await ledger.count("old", stored(records));
      }
      const old = (n: number) => ({ tenant: "giant", instance: instanceId(n, Date.UTC(2021, 0)) });
      const records = [1, 2].map((n) => usageAt(old(n), ten, { memoryByteSeconds: 2n ** 64n - 1n }));
      await ledger.count("old", stored(records));
    }
    metering = await start(journal.location, { stateDirectory });
  });
  afterAll(async () => {
    await metering.stop();
    await journal[Symbol.asyncDispose]();
  });

  const at = toTimestamp(ten);
  test.each([
    ["a key that is none", { tenant: "../x" }, Code.InvalidArgument, "tenant: must be a DNS label"],
    [
      "an end at its start",
      { tenant: "many", start: at, end: at },
      Code.InvalidArgument,
      "end: must be after start",
    ],
    ["a window that is none", { window: 9 as UsageWindow }, Code.InvalidArgument, "window"],
    ["too many rows", { window: UsageWindow.HOUR }, Code.ResourceExhausted, "ask for one tenant"],
    ["more than 64 bits", { tenant: "giant" }, Code.OutOfRange, "ask for a shorter time"],
  ])("%s", async (_, request, code, text) => {
    const error = (await failure(getUsage(metering.url, cell.client, request))) as ConnectError;
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(text)]);
  });

  test("the remedies work", async () => {
    const day = { tenant: "many", window: UsageWindow.DAY };
    const { rows } = await getUsage(metering.url, cell.client, day);
    expect(rows.reduce((sum, row) => sum + row.cpuUs, 0n)).toBe(11_000n);
    const most = { tenant: "many", window: UsageWindow.HOUR, start: toTimestamp(ten - (maxRows - 1) * hour) };
    expect((await getUsage(metering.url, cell.client, most)).rows).toHaveLength(maxRows);
  });

  test("a second metering on the same ledger is refused, a third after the first works", async () => {
    const directory = freshDirectory();
    const first = await start(journal.location, { stateDirectory: directory });
    const error = await failure(start(journal.location, { stateDirectory: directory }));
    expect(error).toBeInstanceOf(StoreLockedError);
    expect(error.message).toContain("in use by another process");
    await first.stop();
    await first.stop();
    await (await start(journal.location, { stateDirectory: directory })).stop();
  });
});

describe("starting", () => {
  test("without a journal, or with two, is refused with what to give", async () => {
    expect((await failure(start({}))).message).toContain("was given none");
    const two = { journalDirectory: "/x", natsUrl: "nats://x" };
    expect((await failure(start(two))).message).toContain("was given two");
  });

  test.skipIf(isQuick)(
    "without its NATS is refused, and the ledger is free again",
    async () => {
      const server = await startNatsServer();
      const location = { natsUrl: server.url.replace("//", "//warren:s3cret@") };
      await server[Symbol.asyncDispose]();
      const stateDirectory = freshDirectory();
      const error = await failure(start(location, { stateDirectory }));
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect(Bun.inspect(error)).not.toContain("s3cret");
      expect(sourceOf(location)).not.toContain("s3cret");
      await SqliteLedger.open(stateDirectory).close();
    },
    15_000,
  );

  test("a ledger of a newer version is refused", async () => {
    const stateDirectory = freshDirectory();
    await SqliteLedger.open(stateDirectory).close();
    const { Database } = await import("bun:sqlite");
    {
      using db = new Database(ledgerPath(stateDirectory));
      db.run("PRAGMA user_version = 99");
    }
    const location = { journalDirectory: freshDirectory() };
    expect(await failure(start(location, { stateDirectory }))).toBeInstanceOf(StoreMismatchError);
  });

  test("before the embedded journal exists, it waits for it and answers", async () => {
    const directory = freshDirectory();
    await using metering = await start({ journalDirectory: directory });
    expect((await getUsage(metering.url, cell.client)).journalSeq).toBe(0n);
    await using store = await openStore({ directory, cell: "test" });
    await store.journal.append([usageAt(fresh("first"), ten, { cpuUs: 3n })]);
    await usageWhen(metering.url, cell.client, (answer) => cpuOf(answer, "first") === 3n);
  });
});

describe("rule 8: a journal that goes away", () => {
  test("NATS killed and restarted under it: counting goes on", async () => {
    await using journal = await startJournal("nats");
    await using metering = await start(journal.location);
    const one = fresh("away");
    await journal.append([usageAt(one, ten, { cpuUs: 1n })]);
    await usageWhen(metering.url, cell.client, (answer) => cpuOf(answer, "away") === 1n);
    await journal.server?.restart();
    await waitUntil(
      () =>
        journal.append([usageAt(one, ten, { cpuUs: 2n }, "n1:s1:again")]).then(
          () => true,
          () => false,
        ),
      { deadlineMs, what: "an append after the restart" },
    );
    await usageWhen(metering.url, cell.client, (answer) => cpuOf(answer, "away") === 2n);
  }, 20_000);

  test("the embedded journal deleted and made anew: counted from its beginning, no total skewed", async () => {
    const directory = freshDirectory();
    const stateDirectory = freshDirectory();
    const one = fresh("anew");
    const location = { journalDirectory: directory };
    {
      await using store = await openStore({ directory, cell: "test" });
      await store.journal.append([1n, 2n, 3n].map((cpuUs) => usageAt(one, ten, { cpuUs })));
      await using metering = await start(location, { stateDirectory });
      await usageWhen(metering.url, cell.client, (answer) => answer.journalSeq === 3n);
    }
    rmSync(directory, { recursive: true });
    await using store = await openStore({ directory, cell: "test" });
    await store.journal.append([usageAt(one, ten, { cpuUs: 4n })]);
    await using metering = await start(location, { stateDirectory });
    const answer = await usageWhen(metering.url, cell.client, ({ journalSeq }) => journalSeq === 1n);
    expect(cpuOf(answer, "anew")).toBe(4n);
  }, 15_000);
});
