/** The client library as others get it: packed, installed from its tarball into an empty project, and used from there. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EventsOptions } from "@warren/client";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { type Ran, run } from "../src/cli.ts";

const root = join(import.meta.dir, "../..");
const environment = { ...process.env } as Record<string, string>;

let cell: TestCell;
let directory: string;
let project: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-client-package-"));
  project = join(directory, "project");
  const results = await Promise.allSettled([startCell(), install()]);
  if (results[0].status === "fulfilled") cell = results[0].value;
  for (const result of results) if (result.status === "rejected") throw result.reason;
}, 120_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** Builds, packs, and installs the tarball with npm, in a project that has nothing else. */
async function install(): Promise<void> {
  const dist = join(directory, "dist");
  await succeeds([process.execPath, join(root, "client/build.ts"), dist]);
  await mkdir(project);
  await writeFile(
    join(project, "package.json"),
    '{ "name": "platform", "private": true, "type": "module" }\n',
  );
  await writeFile(join(project, "control-plane.ts"), controlPlane);
  await succeeds(["npm", "pack", "--silent", "--pack-destination", directory, dist]);
  await succeeds(
    ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "../warren-client-0.1.0.tgz"],
    project,
  );
}

async function succeeds(command: readonly string[], cwd = root): Promise<Ran> {
  const ran = await run(command, { cwd, env: environment, deadlineMs: 100_000 });
  if (ran.code !== 0) throw new Error(`${command.join(" ")}: ${ran.stdout}${ran.stderr}`);
  return ran;
}

/** The repository's compiler, in the project: of its own the project has only the package. */
function tsc(...args: string[]): Promise<Ran> {
  return run(["node", join(root, "node_modules/typescript/bin/tsc"), "--strict", "--ignoreConfig", ...args], {
    cwd: project,
    env: environment,
  });
}

/** What README shows, and one thing of every contract. */
const controlPlane = `
import { Code, type Event, type GetUsageResponse, InstanceState, type Instance, RestartPolicy, Warren, duration, isRpcCode, loadCredentials, size, toJson, TenantSchema } from "@warren/client";

declare const process: { env: Record<string, string>; versions: Record<string, string | undefined> };
const { URL: url, METERING, CREDENTIALS, APP, TENANT: key } = process.env as Record<string, string>;

using warren = new Warren({ url, meteringUrl: METERING, credentials: loadCredentials(CREDENTIALS) });
const events: AsyncGenerator<Event> = warren.events({ tenant: key });
const first = events.next();
const release = await warren.upload(key, APP);
const tenant = await warren.apply({
  key,
  source: { case: "release", value: release.digest },
  restart: RestartPolicy.ON_FAILURE,
  idle: { stopAfter: duration("5m") },
  limits: { diskBytes: size("256m") },
});
const ensured = await warren.scheduler.ensure({ tenant: key });
const refused: boolean = await warren.scheduler.ensure({ tenant: "nobody" }).then(() => false, (error: unknown) => isRpcCode(error, Code.NotFound));
const { instances } = await warren.scheduler.listInstances({ tenant: key });
const ready = instances.filter((instance: Instance) => instance.state === InstanceState.READY);
const usage: GetUsageResponse = await warren.metering.getUsage({ tenant: "nobody" });
const event = (await first).value as Event;
await events.return(undefined);
console.log(JSON.stringify({
  runtime: process.versions.bun ? "bun" : "node",
  digest: release.digest,
  url: ensured.url,
  refused,
  event: event.payload.case,
  ready: ready.length,
  rows: usage.rows.length,
  spec: (toJson(TenantSchema, tenant) as { spec: object }).spec,
}));
`;

test("its manifest names dependencies that npm can install, and what runs it", async () => {
  const installed = join(project, "node_modules/@warren/client");
  const manifest = JSON.parse(await readFile(join(installed, "package.json"), "utf8"));
  expect(manifest.engines.node).toBe(">=20");
  expect(manifest.private).toBeUndefined();
  expect(Object.keys(manifest.dependencies)).toContain("@connectrpc/connect");
  for (const version of Object.values(manifest.dependencies)) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(await readFile(join(installed, "README.md"), "utf8")).toContain("npm install");
});

for (const resolution of ["nodenext", "bundler"]) {
  test(`a control plane compiles strictly against its types under ${resolution}`, async () => {
    const module = resolution === "nodenext" ? "nodenext" : "esnext";
    const options = ["--target", "es2022", "--module", module, "--moduleResolution", resolution];
    const ran = await tsc(...options, "--noEmit", "control-plane.ts");
    expect(ran.stdout + ran.stderr).toBe("");
    expect(ran.code).toBe(0);
    // The types are real: what is not in a spec is found.
    const wrong = controlPlane.replace("diskBytes:", "disk:");
    await writeFile(join(project, "wrong.ts"), wrong);
    expect((await tsc(...options, "--noEmit", "wrong.ts")).stdout).toContain("'disk' does not exist");
  }, 60_000);
}

test("a control plane deploys and ensures with it, under Node and under Bun", async () => {
  const target = ["--target", "es2022", "--module", "nodenext", "--outDir", "out"];
  expect(await tsc(...target, "control-plane.ts")).toMatchObject({ code: 0, stdout: "" });
  for (const [runtime, executable] of [
    ["node", "node"],
    ["bun", process.execPath],
  ] as const) {
    const key = `from-${runtime}`;
    const app = await writeApp(directory, key, "hello");
    const { code, stdout, stderr } = await run([executable, "out/control-plane.js"], {
      cwd: project,
      env: {
        PATH: process.env.PATH ?? "",
        URL: cell.cell.cluster.scheduler,
        METERING: cell.cell.cluster.metering,
        CREDENTIALS: cell.cell.cluster.credentials,
        APP: app,
        TENANT: key,
      },
    });
    expect(code, stderr).toBe(0);
    const said = JSON.parse(stdout) as Record<string, unknown>;
    expect(said).toMatchObject({
      runtime,
      refused: true,
      event: "release",
      ready: 1,
      rows: 0,
      url: cell.url(key, ""),
      spec: { idle: { stopAfter: "300s" }, limits: { diskBytes: "268435456" } },
    });
    // The same files give the same digest as from the sources.
    expect((await cell.warren.upload(key, app)).digest).toBe(said.digest as string);
    expect((await cell.get(key)).status).toBe(200);
  }
}, 60_000);

test("events of the past are all that there are, unless fewer are asked for", async () => {
  const count = async (options: EventsOptions) => {
    let n = 0;
    for await (const _ of cell.warren.events({ tenant: "from-node", ...options })) n++;
    return n;
  };
  const all = await count({ follow: false });
  expect(all).toBeGreaterThan(3);
  expect(await count({ follow: false, since: new Date(0) })).toBeGreaterThanOrEqual(all);
  expect(await count({ follow: false, since: new Date(Date.now() + 60_000) })).toBe(0);
  expect(await count({ follow: false, tail: 2 })).toBe(2);
  // With `follow` they come first, and then it goes on.
  const first = cell.warren.events({ tenant: "from-node", since: new Date(0) });
  expect((await first.next()).value).toMatchObject({ payload: { case: "release" } });
  await first.return(undefined);
});
