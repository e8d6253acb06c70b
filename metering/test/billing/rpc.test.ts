/** Invoices and exports over TLS, of a process that counts a real journal. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { connectRpc, type RpcConnection, streaming } from "@warren/common/rpc/client";
import { Code, ConnectError } from "@warren/common/rpc/errors";
import { fromTimestamp, toTimestamp } from "@warren/common/time";
import {
  ExportFormat,
  ExportRequestSchema,
  MeteringService,
  type PreviewInvoicesRequestSchema,
  UsageWindow,
} from "@warren/proto/metering";
import { CloudEvent } from "cloudevents";
import { exportUsage } from "../../src/export/rpc.ts";
import type { Ledger } from "../../src/ledger/ledger.ts";
import { SqliteLedger } from "../../src/ledger/sqlite/ledger.ts";
import { type Metering, startMetering } from "../../src/metering.ts";
import { hour, instanceId, stored, ten, transitionAt, usageAt } from "../events.ts";
import {
  type Cell,
  createCell,
  deadlineMs,
  type Journal,
  silent,
  startJournal,
  temporaryDirectory,
  usageWhen,
} from "../harness.ts";

const plans = `
currency: EUR
plans:
  pro:
    prices:
      - { meter: cpu-seconds, model: unit, micros: 3_000_001, per: 3, free: 10 }
      - { meter: starts, model: unit, micros: 500 }
    minimumMicros: 20_000_000
  small:
    prices: [{ meter: cpu-seconds, model: unit, micros: 1 }]
    minimumMicros: 7
tenants: { blog: small, named: small, shop: pro, "any-*": small }
`;
const month = toTimestamp(Date.UTC(2026, 5));

let temporary: ReturnType<typeof temporaryDirectory>;
let cell: Cell;
let journal: Journal;
let metering: Metering;
let connection: RpcConnection;

beforeAll(async () => {
  temporary = temporaryDirectory();
  cell = await createCell(join(temporary.path, "cell"), "prod");
  journal = await startJournal("embedded");
  writeFileSync(join(temporary.path, "plans.yaml"), plans);
  metering = await startMetering({
    ...journal.location,
    stateDirectory: join(temporary.path, "state"),
    plansFile: join(temporary.path, "plans.yaml"),
    port: 0,
    credentials: cell.metering,
    log: silent,
  });
  const shop = { tenant: "shop", instance: instanceId(1) };
  await journal.append([
    transitionAt(shop, ten, "STARTING", "READY", { usage: { cpuUs: 1_000_000n } }),
    usageAt(shop, ten + hour, { cpuUs: 13_000_001n }),
    usageAt(shop, ten + 24 * hour, { cpuUs: 40_000_000n, wallMs: 5_000n, frozenMs: 1_000n }),
    // Of the month before.
    usageAt({ tenant: "shop", instance: instanceId(2) }, Date.UTC(2026, 4, 31, 23, 59), { cpuUs: 99n }),
    usageAt({ tenant: "stray", instance: instanceId(3) }, ten, { cpuUs: 5n }),
    usageAt({ tenant: "any-1", instance: instanceId(4) }, ten, { cpuUs: 2_500_000n }),
  ]);
  await usageWhen(metering.url, cell.client, ({ journalSeq }) => journalSeq === 6n);
  connection = connectRpc({ url: metering.url, credentials: cell.client, deadlineMs });
});

afterAll(async () => {
  connection?.close();
  await metering?.stop();
  await journal?.[Symbol.asyncDispose]();
  temporary[Symbol.dispose]();
});

const rpc = () => connection.client(MeteringService);
const preview = (request: MessageInitShape<typeof PreviewInvoicesRequestSchema>) =>
  rpc().previewInvoices({ month, ...request });

async function exported(request: MessageInitShape<typeof ExportRequestSchema>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const { chunk } of streaming((signal) => rpc().export(request, { signal }))) parts.push(chunk);
  return Buffer.concat(parts).toString();
}

async function refusal(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

describe("an invoice", () => {
  test("has a line for each price, the plan's minimum, and is settled an hour after its month", async () => {
    const { invoices, journalSeq } = await preview({ tenant: "shop" });
    expect(journalSeq).toBe(6n);
    expect(invoices).toHaveLength(1);
    const [invoice] = invoices;
    expect(invoice).toMatchObject({
      tenant: "shop",
      plan: "pro",
      currency: "EUR",
      start: month,
      end: toTimestamp(Date.UTC(2026, 6)),
      lines: [
        // (40 - 10) s at 3.000001 EUR for 3 s.
        { name: "CPU", quantity: "40", free: "10", model: "unit", amountMicros: 30_000_010n },
        { name: "Cold starts", quantity: "1", free: "0", amountMicros: 500n },
      ],
      subtotalMicros: 30_000_510n,
      minimumMicros: 0n,
      totalMicros: 30_000_510n,
      settled: true,
    });
    const now = await rpc().previewInvoices({ tenant: "shop" });
    expect(now.invoices[0]).toMatchObject({
      settled: false,
      totalMicros: 20_000_000n,
      minimumMicros: 20_000_000n,
    });
  });

  test("is made of all who used something and all whom the plans name, in pages", async () => {
    const { invoices, nextPageToken } = await preview({});
    expect(nextPageToken).toBe("");
    expect(invoices.map(({ tenant, plan, totalMicros }) => [tenant, plan, totalMicros])).toEqual([
      // Of two and a half micros the even one, and then to the minimum.
      ["any-1", "small", 7n],
      ["blog", "small", 7n],
      ["named", "small", 7n],
      ["shop", "pro", 30_000_510n],
      // What has no plan is seen rather than left out.
      ["stray", "", 0n],
    ]);
    const paged: string[] = [];
    for (let pageToken = ""; ; ) {
      const page = await preview({ pageSize: 2, pageToken });
      expect(page.invoices.length).toBeLessThanOrEqual(2);
      paged.push(...page.invoices.map(({ tenant }) => tenant));
      pageToken = page.nextPageToken;
      if (!pageToken) break;
    }
    expect(paged).toEqual(invoices.map(({ tenant }) => tenant));
  });

  test("of nobody is refused; of one that only a pattern names it is nothing", async () => {
    expect((await refusal(preview({ tenant: "nobody" }))).code).toBe(Code.NotFound);
    expect((await refusal(preview({ tenant: "No!" }))).code).toBe(Code.InvalidArgument);
    expect((await preview({ tenant: "any-2" })).invoices[0]).toMatchObject({
      plan: "small",
      totalMicros: 0n,
    });
  });

  test("needs plans", async () => {
    await using bare = await startMetering({
      ...journal.location,
      stateDirectory: join(temporary.path, "bare"),
      port: 0,
      credentials: cell.metering,
      log: silent,
    });
    const other = connectRpc({ url: bare.url, credentials: cell.client, deadlineMs });
    const error = await refusal(other.client(MeteringService).previewInvoices({}));
    expect([error.code, error.rawMessage]).toEqual([
      Code.FailedPrecondition,
      expect.stringContaining("--plans"),
    ]);
    other.close();
  });
});

describe("an export", () => {
  test("as CSV, JSON lines and rows says the same, by the hour unless asked otherwise", async () => {
    const lines = (await exported({ tenant: "shop", format: ExportFormat.CSV })).split("\r\n");
    expect(lines.length).toBe(6);
    expect(lines[3]).toStartWith("shop,2026-06-01T11:00:00.000Z,2026-06-01T12:00:00.000Z,12000001,");
    const json = (await exported({ tenant: "shop", format: ExportFormat.JSON })).trim().split("\n");
    expect(json.map((line) => JSON.parse(line).cpuUs)).toEqual(["99", "1000000", "12000001", "26999999"]);
    const rows = [];
    const request = { format: ExportFormat.ROWS, window: UsageWindow.DAY };
    for await (const message of streaming((signal) => rpc().export(request, { signal })))
      rows.push(...message.rows);
    expect(rows.map(({ tenant, cpuUs, activeMs }) => [tenant, cpuUs, activeMs])).toEqual([
      ["any-1", 2_500_000n, 0n],
      ["shop", 99n, 0n],
      ["shop", 13_000_001n, 0n],
      ["shop", 26_999_999n, 4_000n],
      ["stray", 5n, 0n],
    ]);
    const total = await exported({ format: ExportFormat.CSV, window: UsageWindow.TOTAL });
    expect(total.split("\r\n")[2]).toStartWith("shop,,,40000099,");
  });

  test("for OpenMeter is of whole, settled windows, and the same each time", async () => {
    const request = { format: ExportFormat.OPENMETER, window: UsageWindow.DAY };
    const text = await exported(request);
    const events = text
      .trim()
      .split("\n")
      .map((line) => new CloudEvent<Record<string, string>>(JSON.parse(line)));
    expect(events.every((event) => event.validate())).toBe(true);
    expect(events.map(({ id, source, data }) => [id, source, data?.cpu_seconds])).toEqual([
      ["any-1/day/2026-06-01T00:00:00.000Z", "warren/prod", "2.5"],
      ["shop/day/2026-05-31T00:00:00.000Z", "warren/prod", "0.000099"],
      ["shop/day/2026-06-01T00:00:00.000Z", "warren/prod", "13.000001"],
      ["shop/day/2026-06-02T00:00:00.000Z", "warren/prod", "26.999999"],
      ["stray/day/2026-06-01T00:00:00.000Z", "warren/prod", "0.000005"],
    ]);
    expect(await exported(request)).toBe(text);
    for (const wrong of [
      { window: UsageWindow.TOTAL },
      { start: toTimestamp(ten) },
      { end: toTimestamp(ten) },
    ]) {
      const { code } = await refusal(exported({ ...request, ...wrong }));
      expect(code).toBe(Code.InvalidArgument);
    }
  });

  test("leaves out what is not settled where asked to, and always for OpenMeter", async () => {
    using directory = temporaryDirectory();
    await using ledger = SqliteLedger.open(directory.path);
    const of = { tenant: "shop", instance: instanceId(1) };
    const reports = [0, 1, 2, 3].map((n) => usageAt(of, ten + n * hour, { cpuUs: BigInt(n + 1) }));
    await ledger.count("j", stored(reports));
    const at = (minutes: number) => ({ now: () => ten + minutes * 60_000, monotonic: () => 0 });
    const hours = async (format: ExportFormat, minutes: number, settledOnly = true) => {
      const starts: (number | undefined)[] = [];
      const request = create(ExportRequestSchema, { format, window: UsageWindow.HOUR, settledOnly });
      const calls = exportUsage({ ledger, cell: "c", clock: at(minutes) }, request, {
        signal: new AbortController().signal,
      });
      for await (const message of calls) {
        if (message.rows) starts.push(...message.rows.map(({ start }) => fromTimestamp(start, undefined)));
        else
          starts.push(
            ...Buffer.from(message.chunk!)
              .toString()
              .trim()
              .split("\n")
              .map((line) => Date.parse(JSON.parse(line).time)),
          );
      }
      return starts.map((start) => (start! - ten) / hour);
    };
    expect(await hours(ExportFormat.ROWS, 119)).toEqual([]);
    expect(await hours(ExportFormat.ROWS, 120)).toEqual([0]);
    expect(await hours(ExportFormat.ROWS, 230)).toEqual([0, 1]);
    expect(await hours(ExportFormat.ROWS, 230, false)).toEqual([0, 1, 2, 3]);
    expect(await hours(ExportFormat.OPENMETER, 240, false)).toEqual([0, 1, 2]);
  });

  test("rule 9: goes through the ledger in pages, and no further once its caller is gone", async () => {
    using directory = temporaryDirectory();
    await using ledger = SqliteLedger.open(directory.path);
    const tenants = 1_000;
    const reports = Array.from({ length: tenants }, (_, n) =>
      usageAt({ tenant: `t${n}`, instance: instanceId(n) }, ten, { cpuUs: 1n }),
    );
    await ledger.count("j", stored(reports));
    let reads = 0;
    const counted = new Proxy<Ledger>(ledger, {
      get(target, name: keyof Ledger) {
        if (name === "usage") reads++;
        return (target[name] as (...args: never[]) => unknown).bind(target);
      },
    });
    const gone = new AbortController();
    const request = create(ExportRequestSchema, { format: ExportFormat.ROWS, window: UsageWindow.HOUR });
    const run = (signal: AbortSignal) =>
      exportUsage({ ledger: counted, cell: "c", clock: { now: () => ten, monotonic: () => 0 } }, request, {
        signal,
      });
    const seen = new Set<string>();
    for await (const message of run(gone.signal)) {
      if (!message.rows) throw new Error("no rows");
      expect(message.rows.length).toBeLessThanOrEqual(2_000);
      for (const { tenant } of message.rows) seen.add(tenant);
    }
    expect([seen.size, reads]).toEqual([tenants, 20]);
    reads = 0;
    for await (const _ of run(gone.signal)) gone.abort();
    expect(reads).toBe(1);
  });
});
