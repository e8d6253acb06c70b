/** Rule 8: a ledger rebuilt from a snapshot and the records behind it is the one that was live. */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { StoreMismatchError } from "@warren/store";
import fc from "fast-check";
import { readLedger } from "../src/ledger/open.ts";
import type { LedgerRow } from "../src/ledger/rows.ts";
import { readSnapshot, writeSnapshot } from "../src/snapshot/file.ts";
import { SnapshotError } from "../src/snapshot/format.ts";
import { VerifyError, verifyLedger } from "../src/snapshot/verify.ts";
import { openReader, sourceOf } from "../src/source.ts";
import { batches, faults } from "./arbitrary.ts";
import { afterMigration, asBeforeFolding, foldedAfterMigration } from "./before-folding.ts";
import { instanceId, stored, ten, trafficAt, transitionAt, usageAt } from "./events.ts";
import { kinds, startJournal, temporaryDirectory } from "./harness.ts";
import { type Ledgers, ledgerKinds } from "./ledgers.ts";

const rowsOf = (rows: AsyncIterable<LedgerRow>) => Array.fromAsync(rows);

let temporary: ReturnType<typeof temporaryDirectory>;
let made = 0;
const fresh = (what: string) => `${what}${++made}`;
beforeAll(() => {
  temporary = temporaryDirectory();
});
afterAll(() => temporary[Symbol.dispose]());

const pairs = ledgerKinds.flatMap((from) =>
  ledgerKinds
    .filter((to) => !(from.kind === "postgres" && to.kind === "sqlite"))
    .map((to) => ({ from, to, here: from.here && to.here })),
);

for (const { from, to, here } of pairs) {
  describe.skipIf(!here)(`a snapshot of ${from.kind} in ${to.kind}`, () => {
    let sources: Ledgers;
    let targets: Ledgers;
    beforeAll(async () => {
      sources = await from.openLedgers();
      targets = to.kind === from.kind ? sources : await to.openLedgers();
    }, 30_000);
    afterAll(async () => {
      await sources[Symbol.asyncDispose]();
      if (targets !== sources) await targets[Symbol.asyncDispose]();
    });

    test("rule 8: taken in the middle, restored, and the rest counted: equal to the live one", async () => {
      await fc.assert(
        fc.asyncProperty(faults, fc.nat(), async ({ arrived, batch }, where) => {
          const odd = { ...arrived[0]!, id: "odd", data: new Uint8Array([0, 255]) };
          const all = batches(stored([...arrived, odd, ...arrived.slice(0, 3)]), batch);
          const middle = where % (all.length + 1);
          const file = join(temporary.path, fresh("snapshot"));
          const [live, rebuilt] = [fresh("live"), fresh("rebuilt")];
          {
            await using ledger = await sources.open(live);
            for (const some of all.slice(0, middle)) await ledger.count("j", some);
            await writeSnapshot(file, readLedger(await sources.at(live)), ten);
            for (const some of all.slice(middle)) await ledger.count("j", some);
          }
          {
            await using ledger = await targets.open(rebuilt);
            await ledger.restore(readSnapshot(file));
            for (const some of all.slice(middle)) await ledger.count("j", some);
          }
          const expected = await rowsOf(readLedger(await sources.at(live)));
          expect(await rowsOf(readLedger(await targets.at(rebuilt)))).toEqual(expected);
        }),
        { numRuns: from.kind === "sqlite" && to.kind === "sqlite" ? 15 : 4 },
      );
    }, 60_000);

    test("is of one moment, though counting goes on while it is read", async () => {
      const name = fresh("live");
      await using ledger = await sources.open(name);
      const lives = (count: bigint) =>
        stored(
          Array.from({ length: 3_000 }, (_, n) =>
            usageAt({ tenant: "shop", instance: instanceId(n) }, ten, { cpuUs: count }),
          ),
        );
      await ledger.count("j", lives(1n));
      const before = await rowsOf(readLedger(await sources.at(name)));
      const rows: LedgerRow[] = [];
      for await (const row of readLedger(await sources.at(name))) {
        if (rows.push(row) === 10) await ledger.count("j", lives(2n));
      }
      expect(rows).toEqual(before);
      expect(await rowsOf(readLedger(await sources.at(name)))).not.toEqual(before);
    }, 20_000);

    test("goes into an empty ledger only, and whole or not at all", async () => {
      const name = fresh("full");
      const file = join(temporary.path, fresh("snapshot"));
      {
        await using ledger = await sources.open(name);
        await ledger.count("j", stored([usageAt({ tenant: "shop", instance: instanceId(1) }, ten, {})]));
        await ledger.markAlerts(ten, [{ tenant: "shop", percent: 50 }]);
        await writeSnapshot(file, readLedger(await sources.at(name)), ten);
        await expect(ledger.restore(readSnapshot(file))).rejects.toBeInstanceOf(StoreMismatchError);
      }
      await using empty = await targets.open(fresh("empty"));
      const broken = async function* () {
        yield* readSnapshot(file);
        throw new Error("broken");
      };
      await expect(empty.restore(broken())).rejects.toThrow("broken");
      expect(await empty.position("j")).toBeUndefined();
      await empty.restore(readSnapshot(file));
      expect((await empty.position("j"))?.seq).toBe(1n);
      expect(await empty.alerts(ten)).toMatchObject([{ tenant: "shop", percent: 50 }]);
    }, 20_000);
  });
}

describe("a snapshot's file", () => {
  const rows: LedgerRow[] = [{ table: "quarantine-count", kind: "unreadable", n: 3 }];
  const written = async () => {
    const path = join(temporary.path, fresh("file"));
    await writeSnapshot(
      path,
      (async function* () {
        yield* rows;
      })(),
      ten,
    );
    return path;
  };

  test("is nobody else's to read, and is there only when it is whole", async () => {
    const path = await written();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await rowsOf(readSnapshot(path))).toEqual(rows);
    const directory = temporaryDirectory();
    const failing = async function* () {
      yield* rows;
      throw new Error("away");
    };
    await expect(writeSnapshot(join(directory.path, "x"), failing(), ten)).rejects.toThrow("away");
    expect(readdirSync(directory.path)).toEqual([]);
    directory[Symbol.dispose]();
  });

  test.each([
    ["cut off", (path: string) => truncateSync(path, statSync(path).size - 25), /not whole|not a JSON/],
    [
      "with a row less",
      (path: string) => {
        const [header, , end] = readFileSync(path, "utf8").split("\n");
        writeFileSync(path, `${header}\n${end}\n`);
      },
      "1 rows were written, 0 are there",
    ],
    ["something else", (path: string) => writeFileSync(path, '{"a":1}\n'), "not a snapshot"],
    ["no text", (path: string) => writeFileSync(path, "\0\n"), "line 1 is not a JSON object"],
    [
      "newer",
      (path: string) => writeFileSync(path, '{"format":"warren-ledger","version":9}\n'),
      "of version 9",
    ],
    [
      "with a wrong row",
      (path: string) =>
        writeFileSync(path, '{"format":"warren-ledger","version":1}\n{"table":"position","source":1}\n'),
      "line 2: source is missing or wrong",
    ],
  ])("%s is refused", async (_, harm, message) => {
    const path = await written();
    harm(path);
    const reading = rowsOf(readSnapshot(path));
    await expect(reading).rejects.toBeInstanceOf(SnapshotError);
    await expect(reading).rejects.toThrow(message);
  });

  test("that is not there says so", async () => {
    await expect(rowsOf(readSnapshot(join(temporary.path, "none")))).rejects.toThrow("ENOENT");
  });
});

test("rule 8: verifying a ledger that has folded, from a snapshot of before or after", async () => {
  await using journal = await startJournal("embedded");
  await using ledgers = await ledgerKinds[0].openLedgers();
  const source = sourceOf(journal.location);
  const location = await ledgers.at("live");
  const signal = AbortSignal.timeout(20_000);
  const day = 24 * 3_600_000;
  // Days to come: what is older than a week the journal would drop.
  const now = Date.now();
  const days = Array.from({ length: 40 }, (_, n) => now + n * day);
  await journal.append(
    days.flatMap((at, n) => {
      const going = { tenant: "shop", instance: instanceId(n, at) };
      const staying = { tenant: "shop", instance: instanceId(99, now) };
      return [going, staying].map((who) => usageAt(who, at, { cpuUs: BigInt(n + 1) }));
    }),
  );
  using written = new Database(join(journal.location.journalDirectory!, "cluster.db"));
  written.run("UPDATE journal SET at = at + (seq - 1) / 2 * ?", [day]);
  await using reader = await openReader(journal.location);
  await using ledger = await ledgers.open("live", { foldAfter: 15 });
  const [early, late] = [join(temporary.path, fresh("snapshot")), join(temporary.path, fresh("snapshot"))];
  let folded = 0;
  for await (const { records } of reader.read({ after: 0n, batch: 2, signal })) {
    await ledger.count(source, records);
    if (records[0]!.seq === 9n) await writeSnapshot(early, readLedger(location), now);
    folded += (await ledger.fold()).accounts;
    if (records[0]!.seq === 61n) await writeSnapshot(late, readLedger(location), now);
    if (records.at(-1)!.seq === 80n) break;
  }
  expect(folded).toBeGreaterThan(10);
  for (const [from, records] of [
    [early, 70],
    [late, 18],
    [undefined, 80],
  ] as const) {
    const verified = verifyLedger({
      live: readLedger(location),
      from: from === undefined ? undefined : readSnapshot(from),
      reader,
      source,
      signal,
    });
    expect(await verified).toMatchObject({ records, difference: undefined });
  }
}, 30_000);

test("rule 8: a snapshot of the version that did not fold is taken, and can be folded", async () => {
  await using ledgers = await ledgerKinds[0].openLedgers();
  const file = join(temporary.path, fresh("snapshot"));
  await using _ = await asBeforeFolding(
    (place) => ledgers.open(place, { foldAfter: 15 }),
    fresh("old"),
    () => {},
  );
  await writeSnapshot(file, readLedger(await ledgers.at(`old${made}`)), ten);
  const old = readFileSync(file, "utf8")
    .replace('"version":2', '"version":1')
    .replace(/^\{"table":"clock".*\n/m, "")
    .replace(/^\{"table":"account","account":"[^"]*\/",.*\n/m, "")
    .replaceAll(/,"(seen|firstHour|lastHour|fromHour|instances)":\d+/g, "")
    .replace(/"rows":\d+/, (text) => `"rows":${Number(text.slice(7)) - 2}`);
  writeFileSync(file, old);
  await using restored = await ledgers.open(fresh("new"), { foldAfter: 15 });
  await restored.restore(readSnapshot(file));
  expect(await foldedAfterMigration(restored)).toEqual(afterMigration);
});

describe.each(kinds)("rule 8: verifying with the %s journal", (kind) => {
  test("finds the live ledger equal to its rebuild, and names what is not", async () => {
    await using journal = await startJournal(kind);
    await using ledgers = await ledgerKinds[0].openLedgers();
    const source = sourceOf(journal.location);
    const life = { tenant: "shop", instance: instanceId(1) };
    await journal.append([
      transitionAt(life, ten, "STARTING", "READY"),
      usageAt(life, ten, { cpuUs: 5n }),
      trafficAt("shop", ten, { gateway: `gw-${instanceId(2)}`, requests: 9n }),
    ]);
    const signal = AbortSignal.timeout(20_000);
    await using reader = await openReader(journal.location);
    const file = join(temporary.path, fresh("snapshot"));
    const location = await ledgers.at("live");
    const verify = (from?: AsyncIterable<LedgerRow>) =>
      verifyLedger({ live: readLedger(location), from, reader, source, signal });
    await using ledger = await ledgers.open("live");
    const countMore = async (count: number) => {
      const after = (await ledger.position(source))?.seq ?? 0n;
      let left = count;
      for await (const { records } of reader.read({ after, batch: 1, signal })) {
        await ledger.count(source, records);
        if (--left === 0) break;
      }
    };
    await countMore(2);
    await writeSnapshot(file, readLedger(location), ten);
    await countMore(1);
    await journal.append([usageAt(life, ten, { cpuUs: 6n })]);
    // Up to where the ledger has counted, and no further.
    expect(await verify()).toEqual({ records: 3, rows: 5, difference: undefined });
    expect(await verify(readSnapshot(file))).toEqual({ records: 1, rows: 5, difference: undefined });
    // Counted twice under another id, as a ledger with a defect would, of another amount.
    await ledger.count("elsewhere", stored([usageAt(life, ten, { cpuUs: 7n })]));
    const { difference } = await verify(readSnapshot(file));
    expect(difference).toMatch(/^the ledger has .*"cpuUs":"7".*, the journal gives .*"cpuUs":"5"/);
    const other = verifyLedger({ live: readLedger(location), reader, source: "other", signal });
    await expect(other).rejects.toBeInstanceOf(VerifyError);
  }, 30_000);
});
