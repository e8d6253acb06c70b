/** What every verb really prints with --json, against the schemas that docs/json.md is made from. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outputOf, outputs } from "@warren/cli/json/outputs";
import { outputProblem } from "@warren/cli/json/shape";
import { waitUntil } from "@warren/common/time";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

const plans = `
currency: EUR
plans:
  pro:
    prices:
      - { meter: requests, model: unit, micros: 100_000 }
default: pro
`;

type Json = Record<string, unknown>;

let cell: TestCell;
let directory: string;
/** Lines that were seen of each verb. */
const seen = new Map<string, number>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-json-"));
  await writeFile(join(directory, "plans.yaml"), plans);
  cell = await startCell({ plansFile: join(directory, "plans.yaml") });
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** Runs a verb with --json, and compares each line that it prints with its schema. */
async function json(verb: string, ...args: string[]): Promise<Json[]> {
  const isLocal = /^(ca|token create|ledger)/.test(verb);
  const state = isLocal ? [] : ["--state", cell.state];
  const ran = await cli([...verb.split(" "), ...args, "--json", ...state], {
    env: { WARREN_STATE: cell.state },
  });
  expect(ran.code, `${verb}: ${ran.stderr}`).toBe(0);
  const lines = ran.stdout.split("\n").filter(Boolean);
  const values = lines.map((line) => JSON.parse(line) as Json);
  for (const value of values) expect(outputProblem(outputOf(verb)!, value)).toBeUndefined();
  seen.set(verb, (seen.get(verb) ?? 0) + values.length);
  return values;
}

/** The same, for a verb that prints one line. */
async function one(verb: string, ...args: string[]): Promise<Json> {
  const values = await json(verb, ...args);
  expect(values).toHaveLength(1);
  return values[0]!;
}

test("a tenant's life", async () => {
  const app = await writeApp(directory, "shop", "hello");
  await one("deploy", app);
  await one("ensure", "shop");
  await one("env set", "shop", "GREETING=hi");
  expect(await one("env ls", "shop")).toEqual({ name: "GREETING", value: "hi" });
  await one("env unset", "shop", "GREETING");
  await one("set", "shop", "--idle", "10m");
  await one("inspect", "shop");
  await one("reload", "shop");
  await one("restart", "shop");
  await one("explain", "shop");
  expect((await json("logs", "shop")).length).toBe(0);
  expect((await one("releases", "shop")).serving).toBe(true);
  await writeFile(
    join(app, "index.ts"),
    'console.log("second"); Bun.serve({ port: process.env.PORT, fetch: () => new Response("2") });',
  );
  await one("deploy", app);
  await waitUntil(async () => (await json("logs", "shop")).length > 0, {
    deadlineMs: 10_000,
    what: "a line of output",
  });
  await one("rollback", "shop");
  await json("events", "shop");
}, 180_000);

test("ps tells of tenants that sleep, that fail, and that run", async () => {
  await one("deploy", await writeApp(directory, "cold", "hello"));
  await one("deploy", await writeApp(directory, "loop", "exitsAtOnce"));
  // Its back-off grows with each failure; the first is over before a process has started to ask.
  await waitUntil(
    async () => {
      await cell.warren.scheduler.ensure({ tenant: "loop" }).catch(() => undefined);
      const { tenant } = await cell.warren.scheduler.getTenant({ tenant: "loop" });
      return (tenant?.backoff?.delay?.seconds ?? 0n) >= 10n;
    },
    { deadlineMs: 45_000, what: "a back-off of 10 s" },
  );
  const lines = await json("ps");
  const of = (tenant: string) => lines.filter((line) => line.tenant === tenant);
  expect(of("shop")).toMatchObject([{ ref: { tenant: "shop" }, state: "INSTANCE_STATE_READY" }]);
  expect(of("cold")).toMatchObject([{ state: "cold", url: cell.url("cold", "") }]);
  expect(of("cold")[0]).not.toHaveProperty("ref");
  expect(of("loop")).toMatchObject([{ backoff: { failures: expect.any(Number) } }]);
  expect(["back-off", "crash-loop"]).toContain(of("loop")[0]!.state as string);
  expect(await json("ps", "cold")).toMatchObject(of("cold"));
  await one("clear-backoff", "loop");
}, 60_000);

test("top has the nodes and the instances themselves", async () => {
  const top = (await one("top")) as { nodes: Json[]; instances: Json[] };
  expect(top.nodes).toMatchObject([{ name: "n1", state: "NODE_STATE_UP" }]);
  expect(top.instances).toMatchObject([{ ref: { tenant: "shop" } }]);
  await one("stats");
  await one("version");
}, 60_000);

test("export --json is JSON, and refused beside another format", async () => {
  await cell.get("shop");
  const used = async () => (await cell.warren.metering.getUsage({ tenant: "shop" })).rows.length > 0;
  await waitUntil(used, { deadlineMs: 20_000, what: "usage of shop" });
  await json("export", "shop");
  await json("usage", "shop");
  await json("invoice", "shop");
  for (const args of [
    ["export", "--format", "csv"],
    ["usage", "--csv"],
  ]) {
    const { code, stdout, stderr } = await cli([...args, "--json", "--state", cell.state]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(args[1]!);
  }
}, 60_000);

test("volumes", async () => {
  await one("deploy", await writeApp(directory, "kept", "hello"), "--volume", "data:data:1GiB");
  await one("ensure", "kept");
  expect(await one("volumes ls")).toMatchObject({ volume: { tenant: "kept", name: "data" } });
  await one("volumes backup", "kept", "data");
  await one("stop", "kept");
  await one("volumes restore", "kept", "data", "--yes");
  await one("volumes rm", "kept", "data", "--yes");
  await one("rm", "kept");
}, 90_000);

test("nodes, snapshots, credentials and tokens", async () => {
  await one("nodes");
  await one("cordon", "n1");
  await one("uncordon", "n1");
  const ca = join(directory, "ca");
  await one("ca init", "--dir", ca);
  await one("ca issue", "console", "--role", "client", "--dir", ca);
  const { id } = await one("token create", "--node", "n9");
  await one("token revoke", id as string);
  expect(await one("token list")).toMatchObject({ id });
  const dump = join(directory, "state.tar");
  await one("state dump", dump);
  await one("state restore", dump);
  const ledger = join(directory, "ledger.snapshot");
  await one("ledger dump", ledger);
  await one("ledger restore", ledger, "--state", join(directory, "ledger"));
  await one("stop", "shop");
  await one("rm", "cold");
  await one("drain", "n1", "--deadline", "2s");
  await one("forget", "n1", "--force");
}, 180_000);

/** `up` is in up.test.ts; `ledger verify` needs a ledger that nobody writes. */
const elsewhere = ["up", "ledger verify"];

test("every verb was seen to print a line, but those that other tests see", () => {
  const all = outputs.map(({ verb }) => verb).filter((verb) => !elsewhere.includes(verb));
  expect(all.filter((verb) => !seen.get(verb))).toEqual([]);
});
