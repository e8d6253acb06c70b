/** What a cluster keeps, moved to another: from the embedded store to a cluster of its own, and what is refused on the way. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Entry, writeArchive } from "@warren/cli/state/archive";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

let from: TestCell;
let to: TestCell;
let directory: string;
let file: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-state-"));
  file = join(directory, "cluster.tar");
  [from, to] = await Promise.all([startCell(), startCell()]);
  const app = await writeApp(directory, "shop", "hello");
  await run(from, "deploy", app, "--env", "SECRET=abc", "--priority", "7");
  const { spec } = (await from.warren.scheduler.getTenant({ tenant: "shop" })).tenant!;
  await from.warren.apply({ ...spec!, key: "twin" }); // shares the release
  await from.warren.scheduler.cordonNode({ node: "n1" });
}, 90_000);

afterAll(async () => {
  await Promise.all([from?.stop(), to?.stop()]);
  await rm(directory, { recursive: true, force: true });
}, 60_000);

const run = async (cell: TestCell, ...args: string[]) => cli([...args, "--state", cell.state]);

test("a dump is restored with releases, environment and cordons, and what is restored serves", async () => {
  expect(await run(from, "state", "dump", file)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("2 tenants and 1 releases"),
  });
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await run(to, "state", "restore", file)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("restored 2 tenants and 1 releases"),
  });
  const { spec } = (await to.warren.scheduler.getTenant({ tenant: "shop" })).tenant!;
  expect(spec).toMatchObject({ env: { SECRET: "abc" }, priority: 7 });
  expect((await to.warren.scheduler.listNodes({})).nodes[0]!.cordoned).toBe(true);
  await to.warren.scheduler.uncordonNode({ node: "n1" });
  for (const tenant of ["shop", "twin"]) expect((await to.get(tenant)).status).toBe(200);
}, 60_000);

test("restored again it changes nothing; a tenant that was changed since is left alone, unless that is asked for", async () => {
  expect((await run(to, "state", "restore", file)).stdout).toContain("2 tenants were there already");
  await to.warren.edit("shop", (spec) => {
    spec.env.SECRET = "new";
  });
  const refused = await run(to, "state", "restore", file);
  expect(refused).toMatchObject({ code: 4, stderr: expect.stringContaining("left as they are: shop") });
  const secret = async () =>
    (await to.warren.scheduler.getTenant({ tenant: "shop" })).tenant?.spec?.env.SECRET;
  expect(await secret()).toBe("new");
  expect((await run(to, "state", "restore", file, "--overwrite")).code).toBe(0);
  expect(await secret()).toBe("abc");
}, 60_000);

test("a release that tenants share is listed for each, and marked where it serves", async () => {
  for (const tenant of ["shop", "twin"]) {
    const { stdout } = await run(from, "releases", tenant);
    expect(stdout).toContain("(serving)");
  }
  const { stdout } = await run(from, "releases", "twin", "--json");
  expect(JSON.parse(stdout)).toMatchObject({ tenant: "shop", serving: true });
});

describe("what is refused", () => {
  test("a file that is no dump, and one that is cut off", async () => {
    const other = join(directory, "other");
    await writeFile(other, "no tar");
    expect((await run(to, "state", "restore", other)).stderr).toMatch(
      /^error: \S+other (cannot be read|is empty)/,
    );
    expect((await run(to, "state", "restore", join(directory, "none"))).stderr).toContain("ENOENT");
    const cut = join(directory, "cut.tar");
    await Bun.write(cut, Bun.file(file));
    await truncate(cut, (await stat(file)).size - 3_000);
    const { code, stderr } = await run(to, "state", "restore", cut);
    expect([code, stderr]).toEqual([1, expect.stringContaining("cannot be read")]);
  });

  test("a dump that holds what this version does not know, and a record that is too large", async () => {
    const head = { version: "9", cluster: "local", at: new Date().toISOString(), tenants: 0, releases: 0 };
    const write = async (path: string, entry: Entry) => {
      await writeArchive(
        path,
        head,
        (async function* () {
          yield entry;
        })(),
      );
      return run(to, "state", "restore", path);
    };
    const unknown = await write(join(directory, "unknown.tar"), { name: "plans/x.json", json: {} });
    expect([unknown.code, unknown.stderr]).toEqual([
      1,
      expect.stringContaining("plans/x.json, which this version does not know"),
    ]);
    const json = "x".repeat(17 * 1024 * 1024);
    const large = await write(join(directory, "large.tar"), { name: "tenants/x.json", json });
    expect([large.code, large.stderr]).toEqual([1, expect.stringContaining("tenants/x.json is too large")]);
  });

  test("a state directory of the embedded store is not opened on NATS", async () => {
    const state = join(from.state, "scheduler");
    const { code, stderr } = await cli([
      "scheduler",
      "--state",
      state,
      "--credentials",
      join(from.state, "credentials", "scheduler"),
      "--nats",
      "nats://127.0.0.1:1",
    ]);
    expect(stderr).toContain(`${state} belongs to a cluster on the embedded store`);
    expect(stderr).toContain("warren state dump");
    expect(code).toBe(4);
  });
});
