/** The ledger's file: whose it is, and what becomes of one that this version did not write. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { StoreLockedError, StoreMismatchError } from "@warren/store";
import { windowOf } from "../src/core/window.ts";
import { ledgerPath, schemaVersion } from "../src/ledger/sqlite/database.ts";
import { SqliteLedger } from "../src/ledger/sqlite/ledger.ts";
import { accountsAdded, afterMigration, asBeforeFolding, foldedAfterMigration } from "./before-folding.ts";
import { instanceId, stored, ten, usageAt } from "./events.ts";
import { firstVersion } from "./first-version.ts";
import { temporaryDirectory } from "./harness.ts";

const shop = { tenant: "shop", instance: instanceId(1) };
const all = { window: windowOf(undefined, undefined), cut: "total", limit: 10 } as const;

let temporary: ReturnType<typeof temporaryDirectory>;
let directory: string;
beforeEach(() => {
  temporary = temporaryDirectory();
  directory = join(temporary.path, "state");
});
afterEach(() => temporary[Symbol.dispose]());

describe("the file", () => {
  test("is nobody else's to read", async () => {
    await using ledger = SqliteLedger.open(directory);
    await ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 1n })]));
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(directory)) {
      expect([file, statSync(join(directory, file)).mode & 0o777]).toEqual([file, 0o600]);
    }
  });

  test("belongs to one process at a time", async () => {
    const first = SqliteLedger.open(directory);
    expect(() => SqliteLedger.open(directory)).toThrow(StoreLockedError);
    expect(() => SqliteLedger.open(directory)).toThrow(`in use by another process (pid ${process.pid})`);
    await first.close();
    await SqliteLedger.open(directory).close();
  });

  test("of a newer version is refused and left as it is, and the lock is given back", async () => {
    await SqliteLedger.open(directory).close();
    using db = new Database(ledgerPath(directory));
    db.run(`PRAGMA user_version = ${schemaVersion + 1}`);
    expect(() => SqliteLedger.open(directory)).toThrow(StoreMismatchError);
    expect(() => SqliteLedger.open(directory)).toThrow("run the newer Warren that wrote it");
  });

  test("of the first version is brought to this one, with all that it holds", async () => {
    mkdirSync(directory);
    {
      using db = new Database(ledgerPath(directory));
      db.run(firstVersion);
    }
    const used = { cpuUs: 70n, memoryByteSeconds: 2n ** 64n - 1n, wallMs: 9n, frozenMs: 1n };
    for (let time = 0; time < 2; time++) {
      await using ledger = SqliteLedger.open(directory);
      expect(await ledger.usage(all)).toMatchObject([
        {
          tenant: "shop",
          used: { ...used, thaws: 0n, requests: 0n, bytesOut: 0n, volumeByteSeconds: 0n },
          starts: 1n,
          instances: 1n,
        },
      ]);
      expect(await ledger.position("j")).toEqual({ seq: 4n, recordId: "n1:s:4" });
      expect(await ledger.quarantineCounts()).toEqual(new Map([["time-past", 1]]));
    }
    await using ledger = SqliteLedger.open(directory);
    await ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 71n, thaws: 2n })]));
    expect(await ledger.usage(all)).toMatchObject([{ used: { cpuUs: 71n, thaws: 2n }, instances: 1n }]);
  });

  test("of the second version is brought to this one, and can be folded", async () => {
    await using ledger = await asBeforeFolding(
      async (place) => SqliteLedger.open(place, 15),
      directory,
      () => {
        using db = new Database(ledgerPath(directory));
        db.run(`
        DROP INDEX accounts_by_from_hour;
        DELETE FROM accounts WHERE tenant = '';
        ${accountsAdded.map((column) => `ALTER TABLE accounts DROP COLUMN ${column};`).join("\n")}
        ALTER TABLE postings DROP COLUMN instances;
        ALTER TABLE accounts DROP COLUMN volume_byte_seconds;
        ALTER TABLE postings DROP COLUMN volume_byte_seconds;
        DROP TABLE clock;
        PRAGMA user_version = 2;
      `);
      },
    );
    expect(await foldedAfterMigration(ledger)).toEqual(afterMigration);
  });

  test.each([
    ["a text", (path: string) => writeFileSync(path, "not a database, but a text of some length".repeat(20))],
    [
      "another program's database",
      (path: string) => {
        using db = new Database(path);
        db.run("CREATE TABLE t (x)");
      },
    ],
  ])("that is %s is refused", (_, make) => {
    mkdirSync(directory);
    const path = ledgerPath(directory);
    make(path);
    expect(() => SqliteLedger.open(directory)).toThrow("is not a Warren ledger");
  });
});
