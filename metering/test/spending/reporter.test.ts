/** The whole metering process against a scheduler's end of ReportSpending, over TLS. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { isQuick } from "@warren/common/testing/quick";
import { waitUntil } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { Role, UsageMeter, UsagePeriod } from "@warren/proto/common";
import { periodOf } from "../../src/billing/period.ts";
import { type MeteringOptions, startMetering } from "../../src/metering.ts";
import { instanceId, usageAt } from "../events.ts";
import {
  type Cell,
  createCell,
  deadlineMs,
  type Journal,
  silent,
  startChild,
  startJournal,
  temporaryDirectory,
  usageWhen,
} from "../harness.ts";
import { startFakeScheduler } from "./scheduler.ts";

let temporary: ReturnType<typeof temporaryDirectory>;
let cell: Cell;
let journal: Journal;
let scheduler: Awaited<ReturnType<typeof startFakeScheduler>>;
let places = 0;

/** The process has the real clock: all is in one month, and a test that runs over its end is run again. */
const now = Date.now();
const month = periodOf("month", now);
const shop = { tenant: "shop", instance: instanceId(1, now - 1_000) };
const limit = { meter: UsageMeter.CPU_SECONDS, period: UsagePeriod.MONTH, max: 10n };
const plans = {
  currency: "EUR",
  plans: {
    pro: {
      prices: [{ meter: "cpu-seconds", model: "unit", micros: 1_000_000 }],
      budget: { micros: 20_000_000 },
    },
  },
  default: "pro",
};

beforeAll(async () => {
  temporary = temporaryDirectory();
  cell = await createCell(join(temporary.path, "cell"));
  const secrets = await openCellSecrets(join(temporary.path, "cell"), "test");
  scheduler = await startFakeScheduler(
    (await secrets.credentialsFor("scheduler", Role.SCHEDULER)).credentials,
  );
  journal = await startJournal("embedded");
  writeFileSync(join(temporary.path, "plans.json"), JSON.stringify(plans));
});

afterAll(async () => {
  await journal?.[Symbol.asyncDispose]();
  await scheduler?.[Symbol.asyncDispose]();
  temporary[Symbol.dispose]();
});

const options = (state: string) => ({
  ...journal.location,
  stateDirectory: join(temporary.path, state),
  plansFile: join(temporary.path, "plans.json"),
  schedulerUrls: [scheduler.url],
  reportEveryMs: 100,
  port: 0,
});
const start = (more: Partial<MeteringOptions> = {}) =>
  startMetering({ ...options(`state-${++places}`), credentials: cell.metering, log: silent, ...more });
const seen = (what: string, condition: () => boolean) => waitUntil(condition, { deadlineMs, what });
const alert = (percent: number, tenant = "shop") => `${tenant} ${month.start / 1_000} ${percent}`;

test("a limit that the scheduler names is reported once it is reached, and budgets at their percents", async () => {
  scheduler.setLimits([{ tenant: "shop", limits: [limit] }]);
  await journal.append([usageAt(shop, now, { cpuUs: 9_999_999n })]);
  const directory = `state-${++places}`;
  await using metering = await start(options(directory));
  await seen(
    "the limits to be known",
    () => scheduler.reports.at(-1)?.seenLimitsVersion === scheduler.version,
  );
  expect(scheduler.reports.every(({ reached }) => reached.length === 0)).toBe(true);
  await journal.append([usageAt(shop, now, { cpuUs: 10_000_000n })]);
  await seen("the limit to be reached", () => scheduler.reports.at(-1)?.reached.length === 1);
  expect(scheduler.reports.at(-1)?.reached[0]).toMatchObject({
    tenant: "shop",
    limit,
    used: 10n,
    until: { seconds: BigInt(month.end / 1_000) },
  });
  await seen("the first alert", () => scheduler.alerts.has(alert(50)));
  const told = scheduler.reports.flatMap(({ alerts }) => alerts);
  expect(told[0]).toMatchObject({
    tenant: "shop",
    plan: "pro",
    percent: 50,
    amountMicros: 10_000_000n,
    budgetMicros: 20_000_000n,
    currency: "EUR",
  });
  // All that are reached are told each time: a scheduler that took over hears of them.
  const reports = scheduler.reports.length;
  await seen("two more reports", () => scheduler.reports.length >= reports + 2);
  expect(scheduler.reports.slice(reports).every(({ reached }) => reached.length === 1)).toBe(true);
  // Those that were acknowledged are not sent again, also not by the next process.
  await metering.stop();
  const before = scheduler.reports.length;
  await using _next = await start(options(directory));
  await seen("reports of the next process", () => scheduler.reports.length >= before + 3);
  expect([...scheduler.alerts]).toEqual([[alert(50), 1]]);
}, 30_000);

test("a price beyond all measure, or use, is told as the most that fits, and keeps nobody's limit from being held", async () => {
  const mad = { tenant: "mad", instance: instanceId(4, now - 1_000) };
  const price = { meter: "cpu-seconds", model: "unit", micros: 10 ** 15 };
  const file = join(temporary.path, "mad.json");
  writeFileSync(
    file,
    JSON.stringify({ ...plans, plans: { pro: { prices: [price], budget: { micros: 1 } } } }),
  );
  scheduler.setLimits([{ tenant: "mad", limits: [limit] }]);
  await journal.append([usageAt(mad, now, { cpuUs: 10_000_000_000n })]);
  await using _ = await start({ plansFile: file });
  await seen("the limit", () =>
    Boolean(scheduler.reports.at(-1)?.reached.some(({ tenant }) => tenant === "mad")),
  );
  await seen("the alert", () => scheduler.alerts.has(alert(100, "mad")));
  const alerts = scheduler.reports.flatMap((report) => report.alerts);
  expect(alerts.find(({ tenant }) => tenant === "mad")).toMatchObject({ amountMicros: 2n ** 63n - 1n });
}, 30_000);

// Two processes that start: left to CI.
test.skipIf(isQuick)(
  "an alert is sent until it is acknowledged, over kill -9 too, and always as the same one",
  async () => {
    const blog = { tenant: "blog", instance: instanceId(2, now - 1_000) };
    await journal.append([usageAt(blog, now, { cpuUs: 30_000_000n })]);
    scheduler.forgets = true;
    const child = options(`state-${++places}`);
    const spawned = () => startChild("metering.ts", { ...child, credentials: cell.meteringDirectory });
    const wanted = [50, 80, 100].map((percent) => alert(percent, "blog"));
    const times = () => wanted.map((id) => scheduler.alerts.get(id) ?? 0);
    {
      await using first = spawned();
      await seen("the alerts", () => times().every((n) => n > 0));
      await first.kill9();
    }
    const sent = times();
    scheduler.forgets = false;
    await using _second = spawned();
    await seen("the alerts again", () => times().every((n, i) => n > sent[i]!));
    const acknowledged = times();
    const reports = scheduler.reports.length;
    await seen("three more reports", () => scheduler.reports.length >= reports + 3);
    expect(times()).toEqual(acknowledged);
    expect([...scheduler.alerts.keys()].filter((id) => id.startsWith("blog")).sort()).toEqual(wanted.sort());
  },
  30_000,
);

test("while the scheduler is away counting goes on, and what is reached is told when it is back", async () => {
  scheduler.refuses = true;
  const late = { tenant: "late", instance: instanceId(3, now - 1_000) };
  scheduler.setLimits([{ tenant: "late", limits: [limit] }]);
  await using metering = await start();
  await journal.append([usageAt(late, now, { cpuUs: 11_000_000n })]);
  await usageWhen(metering.url, cell.client, ({ rows }) => rows.some(({ tenant }) => tenant === "late"));
  scheduler.refuses = false;
  await seen("the limit to be told", () => scheduler.reports.at(-1)?.reached[0]?.tenant === "late");
}, 30_000);
