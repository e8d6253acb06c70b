/** `warren ledger`, as an operator runs it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { encodeEvent } from "@warren/common/cloudevents";
import { isQuick } from "@warren/common/testing/quick";
import { openLedger } from "@warren/metering/ledger/open";
import { sourceOf } from "@warren/metering/source";
import { TrafficReportSchema } from "@warren/proto/common";
import { openStore } from "@warren/store";

const bin = join(import.meta.dir, "../bin/warren");
let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "warren-ledger-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function warren(...args: string[]) {
  const child = Bun.spawn([bin, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", WARREN_STATE: root, WARREN_METERING_LEDGER: undefined },
  });
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code: await child.exited, out, err };
}

test.skipIf(isQuick)(
  "rule 8: a ledger is dumped, restored into an empty one, and verified against the journal",
  async () => {
    const journalDirectory = join(root, "scheduler");
    const source = sourceOf({ journalDirectory });
    const at = Date.now();
    const record = encodeEvent({
      id: "gw:1:1",
      source: "gw",
      time: at,
      tenant: "shop",
      payload: {
        case: "traffic",
        value: create(TrafficReportSchema, {
          tenant: "shop",
          gateway: "gw-01J00000000000000000000000",
          requests: 7n,
        }),
      },
    });
    {
      await using store = await openStore({ directory: journalDirectory, cell: "test" });
      await store.journal.append([record]);
      await using ledger = await openLedger({ stateDirectory: join(root, "metering") });
      await ledger.count(source, [{ ...record, seq: 1n, storedAt: at }]);
      // Metering may run meanwhile.
      const dumped = await warren("ledger", "dump", join(root, "snapshot"), "--json");
      expect(JSON.parse(dumped.out)).toMatchObject({ rows: 6 });
      expect(dumped.code).toBe(0);
    }
    const equal = await warren("ledger", "verify", "--json");
    expect([equal.code, JSON.parse(equal.out)]).toEqual([0, { equal: true, records: 1, rows: 3 }]);

    const again = await warren("ledger", "restore", join(root, "snapshot"));
    expect([again.code, again.err]).toEqual([1, expect.stringContaining("is not empty")]);
    const restored = await warren(
      "ledger",
      "restore",
      join(root, "snapshot"),
      "--state",
      join(root, "other"),
    );
    expect([restored.code, restored.out]).toEqual([0, "restored 6 rows\n"]);
    {
      await using other = await openLedger({ stateDirectory: join(root, "other") });
      await other.count("elsewhere", [
        { ...record, id: "x", headers: { ...record.headers }, seq: 1n, storedAt: at },
      ]);
    }
    const verified = await warren("ledger", "verify", join(root, "snapshot"), "--state", join(root, "other"));
    expect([verified.code, verified.out]).toEqual([0, "equal: 3 rows, 0 records counted again\n"]);
    const none = await warren("ledger", "dump", "-", "--state", join(root, "none"));
    expect([none.code, none.err]).toEqual([1, expect.stringContaining("there is no ledger")]);
  },
  60_000,
);
