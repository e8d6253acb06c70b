/** From a request to the bill, in a whole cell: usage, invoice, export, a budget alert among the events, a limit that holds. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

const plans = `
currency: EUR
plans:
  pro:
    prices:
      - { meter: requests, name: Calls, model: unit, micros: 100_000 }
      - { meter: starts, model: unit, micros: 6_000_000 }
    budget: { micros: 10_000_000 }
default: pro
`;

let cell: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-billing-"));
  await writeFile(join(directory, "plans.yaml"), plans);
  cell = await startCell({ plansFile: join(directory, "plans.yaml") });
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

const run = (...args: string[]) => cli([...args, "--state", cell.state]);
async function text(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(...args);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}
// biome-ignore lint/suspicious/noExplicitAny: whatever the verb prints
const json = async (...args: string[]): Promise<any[]> =>
  (await text(...args, "--json"))
    .trim()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const deadline = (what: string) => ({ deadlineMs: 20_000, what });

test("what a tenant used is shown, billed and exported; its budget alerts once at each percent", async () => {
  await text("deploy", await writeApp(directory, "shop", "hello"));
  for (let i = 0; i < 5; i++) expect((await cell.get("shop")).status).toBe(200);
  await waitUntil(async () => (await json("usage", "shop"))[0]?.requests === "5", deadline("the requests"));
  const [invoice] = await json("invoice", "shop");
  expect(invoice).toMatchObject({
    tenant: "shop",
    plan: "pro",
    currency: "EUR",
    lines: [
      { name: "Calls", quantity: "5", free: "0", model: "unit", amountMicros: "500000" },
      { name: "Cold starts", quantity: "1", amountMicros: "6000000" },
    ],
    totalMicros: "6500000",
  });
  expect(await text("invoice", "shop")).toMatch(/total +6\.50 EUR/);
  expect(await text("usage")).toContain("shop");
  const file = join(directory, "usage.csv");
  await text("export", "shop", "--by", "month", "--output", file);
  const [names, row] = (await readFile(file, "utf8")).split("\r\n").map((line) => line.split(","));
  expect(row![names!.indexOf("requests")]).toBe("5");
  // This hour is not settled: OpenMeter gets nothing of it yet.
  const settled = await cli(["export", "shop", "--format", "openmeter", "--state", cell.state]);
  expect(settled).toMatchObject({ code: 0, stdout: "" });
  expect(settled.stderr).toContain("nothing to export: only settled windows");

  // biome-ignore lint/suspicious/noExplicitAny: as above
  const budgets = async (): Promise<any[]> => (await json("events", "shop")).filter(({ budget }) => budget);
  await waitUntil(async () => (await budgets()).length > 0, deadline("a budget alert"));
  for (let i = 0; i < 20; i++) await cell.get("shop");
  await waitUntil(async () => (await budgets()).length > 1, deadline("the next alert"));
  expect((await budgets()).map(({ budget }) => budget.percent)).toEqual([50, 80]);
}, 90_000);

test("a limit that is reached stops the tenant, refuses it with the reason, and a higher one lets it go on", async () => {
  const app = await writeApp(directory, "bounded", "hello");
  await text("deploy", app, "--usage-limit", "requests=3/month");
  for (let i = 0; i < 4; i++) await (await cell.get("bounded")).text();
  await waitUntil(
    async () => (await cell.ready("bounded")).length === 0,
    deadline("the instance to be stopped"),
  );
  const refused = await run("ensure", "bounded");
  expect(refused.code).toBe(4);
  expect(refused.stderr).toContain("has reached a limit on its use");
  expect((await cell.get("bounded")).ok).toBe(false);
  await text("deploy", app, "--usage-limit", "requests=1000/month");
  await waitUntil(async () => (await cell.get("bounded")).ok, deadline("it to be served again"));
}, 90_000);

test("where metering is not there, or not known, the verbs say so", async () => {
  const away = await run("usage", "--metering", "https://127.0.0.1:1");
  expect(away.code).toBe(5);
  expect(away.stderr).toContain("the metering process does not answer");
  const unknown = await cli([
    "invoice",
    "--scheduler",
    cell.cell.cluster.scheduler,
    "--credentials",
    cell.cell.cluster.credentials,
  ]);
  expect(unknown.code).toBe(2);
  expect(unknown.stderr).toContain("WARREN_METERING_URL");
}, 60_000);
