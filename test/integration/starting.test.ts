/** What people have is deployed as it is: start scripts, apps that check hosts, workers. On one cluster. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { InstanceMode } from "@warren/proto/common";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli, type Ran } from "../src/cli.ts";

let parent: string;
let cell: TestCell;
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), "warren-starting-"));
  cell = await startCell({ freezeAfter: "1s" });
}, 60_000);
afterAll(async () => {
  await cell?.stop();
  await rm(parent, { recursive: true, force: true });
});

async function app(name: string, files: Record<string, string>): Promise<string> {
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(parent, name, file)), { recursive: true });
    await writeFile(join(parent, name, file), text);
  }
  return join(parent, name);
}

const warren = (...args: string[]): Promise<Ran> => cli(args, { env: { WARREN_STATE: cell.state } });
const deploy = (directory: string, name: string, ...flags: string[]) =>
  warren("deploy", directory, "--name", name, ...flags);
const serve = (answer: string) =>
  `Bun.serve({ port: process.env.PORT, hostname: process.env.HOST, fetch: (request) => ${answer} });`;

test("a start script decides what runs, and node in it is the Bun of Warren", async () => {
  const directory = await app("scripted", {
    "package.json": JSON.stringify({
      module: "index.ts",
      scripts: { start: "A=1 node --no-warnings server/main.js --mode=x" },
    }),
    "index.ts": "throw new Error('not me')",
    "server/main.js": serve("Response.json([process.versions.bun, process.env.A, ...process.argv.slice(2)])"),
  });
  expect((await deploy(directory, "scripted")).code).toBe(0);
  expect(await (await cell.get("scripted")).json()).toEqual([Bun.version, "1", "--mode=x"]);
});

test("what could not be run is refused before the upload, and so is a spec that contradicts itself", async () => {
  const empty = await app("empty", { "README.md": "" });
  const nothing = await deploy(empty, "empty");
  expect(nothing).toMatchObject({ code: 2, stdout: "" });
  expect(nothing.stderr).toContain("nothing to run: package.json has no start script");
  const odd = await deploy(
    await app("odd", { "index.ts": "" }),
    "odd",
    "--ready-kind",
    "none",
    "--freeze",
    "5s",
  );
  expect(odd).toMatchObject({ code: 2, stdout: "" });
  expect(odd.stderr).toContain("idle.freeze_after: a tenant with readiness none serves no HTTP");
  expect((await cell.warren.scheduler.listTenants({})).tenants.map(({ spec }) => spec?.key)).not.toContain(
    "odd",
  );
});

test("an app that answers its own host name alone becomes ready, and stays it under a liveness probe", async () => {
  const isOwn = 'request.headers.get("host").startsWith(process.env.WARREN_TENANT + ".")';
  const directory = await app("picky", {
    "index.ts": serve(`new Response("", { status: ${isOwn} ? 200 : 403 })`),
  });
  expect(
    (await deploy(directory, "picky", "--ready", "/", "--live", "/", "--live-interval", "100ms")).code,
  ).toBe(0);
  expect((await cell.get("picky")).status).toBe(200);
});

test("one that listens elsewhere is told where by ensure, though its spec names no time", async () => {
  const directory = await app("fixed", {
    "app.ts": 'Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() })',
  });
  expect((await deploy(directory, "fixed")).code).toBe(0);
  const { code, stderr } = await warren("ensure", "fixed");
  expect(code).toBe(4);
  expect(stderr).toMatch(
    /not ready: it listens on 127\.0\.0\.1:\d+, not on 127\.0\.0\.1:\d+ \(let it listen on the port in PORT/,
  );
});

test("a worker has no URL, is not woken by visitors, and works on while others sleep", async () => {
  const directory = await app("worker", {
    "index.ts": `let n = 0; setInterval(() => console.log("tick " + ++n), 100);`,
  });
  const deployed = await deploy(directory, "worker", "--ready-kind", "none", "--min", "1");
  expect(deployed.code).toBe(0);
  expect(deployed.stdout).not.toContain("http:");
  const sleeper = await app("sleeper", { "index.ts": serve("new Response()") });
  expect((await deploy(sleeper, "sleeper")).code).toBe(0);
  expect((await cell.get("sleeper")).status).toBe(200);
  const mode = async (tenant: string) => (await cell.ready(tenant))[0]?.mode;
  await waitUntil(async () => (await mode("sleeper")) === InstanceMode.FROZEN, {
    deadlineMs: 20_000,
    what: "the tenant beside it to be frozen",
  });
  expect(await mode("worker")).toBe(InstanceMode.ACTIVE);
  expect((await cell.get("worker")).status).toBe(404);
  const last = async () => /tick (\d+)\s*$/.exec((await warren("logs", "worker", "-n", "1")).stdout)?.[1];
  const before = await last();
  await waitUntil(async () => (await last()) !== before, { deadlineMs: 10_000, what: "its next tick" });
  const ensured = await warren("ensure", "worker", "--json");
  expect(JSON.parse(ensured.stdout)).toMatchObject({ tenant: "worker", url: "" });
});
