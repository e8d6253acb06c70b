/** What gateways and metering may not tell a real scheduler: refused, with the field's name, and nothing is harmed. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadCredentials } from "@warren/client";
import { ulid } from "@warren/common/ids";
import { connectRpc } from "@warren/common/rpc/client";
import { Code, ConnectError } from "@warren/common/rpc/errors";
import { UsageMeter, UsagePeriod } from "@warren/proto/common";
import { SchedulerService } from "@warren/proto/scheduler";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

let cell: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-reports-"));
  cell = await startCell();
  const app = await writeApp(directory, "shop", "hello");
  const limit = "requests=1000/month";
  const { code } = await cli(["deploy", app, "--usage-limit", limit, "--state", cell.state]);
  expect(code).toBe(0);
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

async function as<T>(
  name: string,
  call: (scheduler: ReturnType<typeof clientOf>) => Promise<T>,
): Promise<T | ConnectError> {
  const credentials = loadCredentials(join(cell.state, "credentials", name));
  const connection = connectRpc({ url: cell.cell.cluster.scheduler, credentials });
  try {
    return await call(clientOf(connection)).catch((error: unknown) => ConnectError.from(error));
  } finally {
    connection.close();
  }
}

const clientOf = (connection: ReturnType<typeof connectRpc>) => connection.client(SchedulerService);

const noDates = [
  ["far away", { seconds: 2n ** 60n, nanos: 0 }],
  ["of year 20000", { seconds: 568_971_820_800n, nanos: 0 }],
  ["with nanoseconds below 0", { seconds: 1n, nanos: -1 }],
] as const;

test.each(noDates)("a time %s is no date: of traffic", async (_, at) => {
  const report = { tenant: "shop", gateway: `gateway-${ulid()}`, requests: 1n, at };
  const error = await as("gateway", (scheduler) =>
    scheduler.reportTraffic({ records: [{ seq: 1n, report }] }),
  );
  expect(error).toMatchObject({ code: Code.InvalidArgument, rawMessage: expect.stringContaining("at:") });
});

test.each(noDates)("a time %s is no date: of an alert, or until which a limit holds", async (_, time) => {
  const alert = { tenant: "shop", plan: "p", percent: 50, currency: "EUR" };
  const limit = { meter: UsageMeter.REQUESTS, period: UsagePeriod.MONTH, max: 1_000n };
  for (const report of [
    { alerts: [{ ...alert, periodStart: time, periodEnd: { seconds: 1n } }] },
    { alerts: [{ ...alert, periodStart: { seconds: 1n }, periodEnd: time }] },
    { reached: [{ tenant: "shop", limit, used: 2_000n, until: time }] },
  ]) {
    const error = await as("metering", (scheduler) => scheduler.reportSpending(report));
    expect(error).toMatchObject({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining("must be a time"),
    });
  }
  // It would be refused, or fail, if any of them had been taken.
  const answer = await as("client", (scheduler) => scheduler.ensure({ tenant: "shop" }));
  expect(answer).not.toBeInstanceOf(ConnectError);
});
