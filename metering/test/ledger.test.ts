/** The ledger's file: whose it is, what it keeps, and that a batch is counted whole or not at all. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { StoreLockedError, StoreMismatchError } from "@warren/store";
import { windowOf } from "../src/core/window.ts";
import { ledgerPath, schemaVersion } from "../src/ledger/database.ts";
import { Ledger } from "../src/ledger/ledger.ts";
import { quarantineRows } from "../src/ledger/quarantine.ts";
import { hour, instanceId, stored, ten, usageAt } from "./events.ts";
import { temporaryDirectory } from "./harness.ts";

const shop = { tenant: "shop", instance: instanceId(1) };
const all = { window: windowOf(undefined, undefined), cut: "total", limit: 10 } as const;
const now = ten + hour;

let temporary: ReturnType<typeof temporaryDirectory>;
let directory: string;
beforeEach(() => {
  temporary = temporaryDirectory();
  directory = join(temporary.path, "state");
});
afterEach(() => temporary[Symbol.dispose]());

describe("the file", () => {
  test("is nobody else's to read", () => {
    using ledger = Ledger.open(directory);
    ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 1n })]), now);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(directory)) {
      expect([file, statSync(join(directory, file)).mode & 0o777]).toEqual([file, 0o600]);
    }
  });

  test("belongs to one process at a time", () => {
    const first = Ledger.open(directory);
    expect(() => Ledger.open(directory)).toThrow(StoreLockedError);
    expect(() => Ledger.open(directory)).toThrow(`in use by another process (pid ${process.pid})`);
    first.close();
    Ledger.open(directory).close();
  });

  test("of a newer version is refused and left as it is, and the lock is given back", () => {
    Ledger.open(directory).close();
    using db = new Database(ledgerPath(directory));
    db.run(`PRAGMA user_version = ${schemaVersion + 1}`);
    expect(() => Ledger.open(directory)).toThrow(StoreMismatchError);
    expect(() => Ledger.open(directory)).toThrow("run the newer Warren that wrote it");
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
    expect(() => Ledger.open(directory)).toThrow("is not a Warren ledger");
  });
});

describe("rule 8: counting", () => {
  test("positions are kept per journal, with what was counted", () => {
    {
      using ledger = Ledger.open(directory);
      ledger.count("a", stored([usageAt(shop, ten, { cpuUs: 5n }, "n1:s:9")], 41), now);
      ledger.count("b", stored([usageAt(shop, ten, { cpuUs: 6n }, "n1:s:10")]), now);
    }
    using ledger = Ledger.open(directory);
    expect(ledger.position("a")).toEqual({ seq: 42n, recordId: "n1:s:9" });
    expect(ledger.position("b")).toEqual({ seq: 1n, recordId: "n1:s:10" });
    expect(ledger.position("c")).toBeUndefined();
    expect(ledger.usage(all)).toMatchObject([{ tenant: "shop", used: { cpuUs: 6n } }]);
  });

  test("a batch that cannot be written whole is not written at all", () => {
    using ledger = Ledger.open(directory);
    ledger.count("j", stored([usageAt(shop, ten, { cpuUs: 5n })]), now);
    const impossible = { ...usageAt(shop, ten, { cpuUs: 9n }), seq: 2n ** 70n };
    expect(() => ledger.count("j", [impossible], now)).toThrow();
    expect(ledger.usage(all)).toMatchObject([{ used: { cpuUs: 5n } }]);
    expect(ledger.position("j")?.seq).toBe(1n);
  });

  test("sums above 2^53, 2^63 and 2^64 are right to the last byte-second", () => {
    using ledger = Ledger.open(directory);
    const most = 2n ** 64n - 1n;
    // Old enough that so much memory is possible.
    const old = (n: number) => ({ tenant: "shop", instance: instanceId(n, Date.UTC(2022, 0)) });
    const records = [1, 2, 3].map((n) => usageAt(old(n), ten, { memoryByteSeconds: most }));
    ledger.count("j", stored(records), now);
    ledger.count("j", stored([usageAt(shop, ten, { memoryByteSeconds: 2n ** 53n + 1n })]), now);
    expect(ledger.usage(all)[0]?.used.memoryByteSeconds).toBe(3n * most + 2n ** 53n + 1n);
  });

  test("one instance's hour may pass 2^63 in two steps", () => {
    using ledger = Ledger.open(directory);
    const old = { tenant: "shop", instance: instanceId(1, Date.UTC(2022, 0)) };
    for (const memoryByteSeconds of [2n ** 63n - 1n, 2n ** 63n + 5n]) {
      ledger.count("j", stored([usageAt(old, ten, { memoryByteSeconds })]), now);
    }
    expect(ledger.usage(all)[0]?.used.memoryByteSeconds).toBe(2n ** 63n + 5n);
  });
});

describe("quarantine", () => {
  const odd = (from: number, to: number) =>
    stored(
      Array.from({ length: to - from }, (_, n) => usageAt(shop, 0, {}, `n1:odd:${from + n}`)),
      from,
    );

  test("keeps the newest whole, counts all, and counts none twice", () => {
    using ledger = Ledger.open(directory);
    expect(ledger.count("j", odd(0, 5), now).newlyQuarantined).toBe(5);
    expect(ledger.count("j", odd(0, 7), now).newlyQuarantined).toBe(2);
    expect(ledger.quarantineCounts()).toEqual(new Map([["time-past", 7]]));
    for (let n = 0; n < 4; n++) ledger.count("j", odd(0, 7), now);
    ledger.count("j", odd(7, 7 + quarantineRows), now);
    using db = new Database(ledgerPath(directory), { readonly: true });
    const kept = db.query("SELECT count(*) AS n, min(seq) AS first FROM quarantine").get();
    expect(kept).toEqual({ n: quarantineRows, first: 8 });
    expect(ledger.quarantineCounts().get("time-past")).toBe(7 + quarantineRows);
    const row = db.query<{ data: Uint8Array; headers: string }, []>("SELECT * FROM quarantine LIMIT 1").get();
    expect(JSON.parse(row!.headers)["ce-type"]).toBe("dev.warren.usage");
    expect(new TextDecoder().decode(row!.data)).toContain(shop.instance);
  });
});
