/** What only the ledger in a PostgreSQL has to do: outages, refusals, one that counts at a time. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ConfigError } from "@warren/common/config";
import { Code } from "@warren/common/rpc/errors";
import { systemClock, waitUntil } from "@warren/common/time";
import { type GetUsageResponse, UsageWindow } from "@warren/proto/metering";
import { StoreLockedError, StoreMismatchError, StoreUnavailableError } from "@warren/store";
import { SQL } from "bun";
import { windowOf } from "../src/core/window.ts";
import { Follower } from "../src/follower.ts";
import { withTls } from "../src/ledger/postgres/connection.ts";
import { PostgresLedger } from "../src/ledger/postgres/ledger.ts";
import { startMetering } from "../src/metering.ts";
import { meteringMetrics } from "../src/metrics.ts";
import { openReader, sourceOf } from "../src/source.ts";
import { type PostgresServer, startPostgres } from "../src/testing/postgres-server.ts";
import { accountsAdded, afterMigration, asBeforeFolding, foldedAfterMigration } from "./before-folding.ts";
import { instanceId, stored, ten, transitionAt, usageAt } from "./events.ts";
import {
  consumerWhen,
  createCell,
  deadlineMs,
  getUsage,
  silent,
  startJournal,
  temporaryDirectory,
  usageWhen,
} from "./harness.ts";
import { hasPostgres } from "./ledgers.ts";

const shop = { tenant: "shop", instance: instanceId(1) };
const all = { window: windowOf(undefined, undefined), cut: "total", limit: 10 } as const;
const cpuOf = async (ledger: PostgresLedger) => (await ledger.usage(all))[0]?.used.cpuUs;

test.each([
  ["postgres://w:x@db.example/l", "postgres://w:x@db.example/l?sslmode=verify-full"],
  ["postgres://w:x@10.0.0.1:5433/l?sslmode=disable", "postgres://w:x@10.0.0.1:5433/l?sslmode=disable"],
  ["postgres://w:x@127.0.0.1:5433/l", "postgres://w:x@127.0.0.1:5433/l"],
  ["postgresql://w:x@localhost/l", "postgresql://w:x@localhost/l"],
])("%s goes out as %s", (url, expected) => expect(withTls(url)).toBe(expected));

describe.skipIf(!hasPostgres)("a ledger in PostgreSQL", () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres();
  }, 30_000);
  afterAll(() => server[Symbol.asyncDispose]());

  const admin = async (url: string, run: (sql: SQL) => Promise<unknown>) => {
    const sql = new SQL(url, { max: 1 });
    try {
      await run(sql);
    } finally {
      await sql.close({ timeout: 0 });
    }
  };
  /** Ends every session of that database, as an operator or a failover does. */
  const endSessions = (url: string) =>
    admin(
      url,
      (sql) =>
        sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );

  test("rule 8: one process counts at a time; another is told who", async () => {
    const url = await server.createDatabase();
    const first = await PostgresLedger.open(url);
    const refused = PostgresLedger.open(url);
    await expect(refused).rejects.toBeInstanceOf(StoreLockedError);
    await expect(refused).rejects.toThrow("in use by another process (warren-metering from 127.0.0.1)");
    await first.close();
    await (await PostgresLedger.open(url)).close();
  }, 20_000);

  test("rule 8: one that lost its session counts nothing while another does", async () => {
    const url = await server.createDatabase();
    await using first = await PostgresLedger.open(url);
    await first.count("j", stored([usageAt(shop, ten, { cpuUs: 1n })]));
    await endSessions(url);
    {
      await using second = await PostgresLedger.open(url);
      const late = first.count("j", stored([usageAt(shop, ten, { cpuUs: 99n })]));
      await expect(late).rejects.toThrow();
      await expect(first.count("j", stored([usageAt(shop, ten, { cpuUs: 98n })]))).rejects.toBeInstanceOf(
        StoreLockedError,
      );
      await second.count("j", stored([usageAt(shop, ten, { cpuUs: 2n })]));
      expect(await cpuOf(second)).toBe(2n);
    }
    await first.count("j", stored([usageAt(shop, ten, { cpuUs: 3n })]));
    expect(await cpuOf(first)).toBe(3n);
  }, 30_000);

  test("rule 8: PostgreSQL killed and restarted while events come: all of them counted, once", async () => {
    await using own = await startPostgres();
    await using journal = await startJournal("embedded");
    await using ledger = await PostgresLedger.open(await own.createDatabase());
    await using reader = await openReader(journal.location);
    const source = sourceOf(journal.location);
    const metrics = meteringMetrics(ledger, source);
    await using _ = Follower.start({ reader, ledger, source, metrics, clock: systemClock, log: silent });
    let told = 0n;
    const tell = async (count: number) => {
      for (let n = 0; n < count; n++) {
        told++;
        const lives = [1, 2, 3].map((life) => ({ tenant: "shop", instance: instanceId(life) }));
        await journal.append(lives.map((one, l) => usageAt(one, ten, { cpuUs: told }, `n${l}:s:${told}`)));
      }
    };
    for (let round = 0; round < 2; round++) {
      const before = 3n * told;
      const telling = tell(100);
      await waitUntil(async () => ((await cpuOf(ledger)) ?? 0n) > before, { deadlineMs: 20_000 });
      await own.kill9();
      await expect(ledger.usage(all)).rejects.toBeInstanceOf(StoreUnavailableError);
      // The ledger is away, the metrics are not.
      expect(await metrics.registry.metrics()).toContain("warren_metering_failures_total");
      await telling;
      await own.restart();
    }
    await waitUntil(async () => (await cpuOf(ledger).catch(() => 0n)) === 3n * told, { deadlineMs: 30_000 });
    expect(await ledger.missing()).toBe(0);
    expect((await ledger.position(source))?.seq).toBe(3n * told);
  }, 90_000);

  test("is what the whole process counts in, from NATS; while it is away, calls say so", async () => {
    await using own = await startPostgres();
    await using journal = await startJournal("nats");
    using temporary = temporaryDirectory();
    const cell = await createCell(temporary.path);
    await using metering = await startMetering({
      ledgerUrl: await own.createDatabase(),
      ...journal.location,
      port: 0,
      credentials: cell.metering,
      log: silent,
    });
    await journal.append([
      transitionAt(shop, ten, "STARTING", "READY"),
      usageAt(shop, ten, { cpuUs: 7n, wallMs: 9n, frozenMs: 4n }),
    ]);
    const request = { window: UsageWindow.MONTH };
    const counted = ({ journalSeq }: GetUsageResponse) => journalSeq === 2n;
    const { rows } = await usageWhen(metering.url, cell.client, counted, request);
    expect(rows).toMatchObject([{ tenant: "shop", cpuUs: 7n, activeMs: 5n, starts: 1n, instances: 1n }]);
    await consumerWhen(journal.server!.url, (info) => info.ack_floor.stream_seq === 2);
    await own.kill9();
    const asking = getUsage(metering.url, cell.client);
    await expect(asking).rejects.toMatchObject({ code: Code.Unavailable });
    await own.restart();
    await waitUntil(() => getUsage(metering.url, cell.client).then(counted, () => false), { deadlineMs });
  }, 60_000);

  test("of a newer version, or a schema of somebody else's, is refused and left as it is", async () => {
    const newer = await server.createDatabase();
    await (await PostgresLedger.open(newer)).close();
    await admin(newer, (sql) => sql`UPDATE warren.ledger SET version = 99`);
    await expect(PostgresLedger.open(newer)).rejects.toBeInstanceOf(StoreMismatchError);
    await expect(PostgresLedger.open(newer)).rejects.toThrow("run the newer Warren that wrote it");
    const other = await server.createDatabase();
    await admin(other, (sql) => sql`CREATE SCHEMA warren`);
    await expect(PostgresLedger.open(other)).rejects.toThrow("is not a Warren ledger");
  }, 20_000);

  test("of the version before is brought to this one, and can be folded", async () => {
    const url = await server.createDatabase();
    await using ledger = await asBeforeFolding(
      (place) => PostgresLedger.open(place, 15),
      url,
      () =>
        admin(url, async (sql) => {
          await sql`DELETE FROM warren.accounts WHERE tenant = ''`;
          for (const column of accountsAdded)
            await sql.unsafe(`ALTER TABLE warren.accounts DROP COLUMN ${column}`);
          await sql`ALTER TABLE warren.postings DROP COLUMN instances`;
          for (const table of ["accounts", "postings"])
            await sql.unsafe(`ALTER TABLE warren.${table} DROP COLUMN volume_byte_seconds`);
          await sql`DROP TABLE warren.clock`;
          await sql`UPDATE warren.ledger SET version = 1`;
        }),
    );
    expect(await foldedAfterMigration(ledger)).toEqual(afterMigration);
  }, 20_000);

  test("that is not there, or refuses us, is named without its password", async () => {
    const url = await server.createDatabase();
    for (const wrong of [url.replace("t3st", "s3cret"), "postgres://warren:s3cret@127.0.0.1:1/x"]) {
      const error = await PostgresLedger.open(wrong).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect((error as Error).message).toMatch(/the ledger postgres:\/\/127\.0\.0\.1:\d+\/\w+: /);
      expect(Bun.inspect(error)).not.toContain("s3cret");
    }
    const none = PostgresLedger.open("mysql://warren:s3cret@127.0.0.1/x");
    await expect(none).rejects.toBeInstanceOf(ConfigError);
    await expect(none).rejects.not.toThrow("s3cret");
  }, 20_000);

  test("takes records that no text of PostgreSQL may hold, into quarantine", async () => {
    await using ledger = await PostgresLedger.open(await server.createDatabase());
    const [odd] = stored([usageAt({ tenant: "shop", instance: "a\0b\ud83d" }, ten, {})]);
    const counted = await ledger.count("j", [
      { ...odd!, id: "odd\0id", data: new Uint8Array([0, 255, 1]) },
      { ...odd!, seq: 2n },
    ]);
    expect(counted.newlyQuarantined).toBe(2);
    await waitUntil(async () => (await ledger.position("j"))?.seq === 2n, { deadlineMs });
  });
});
