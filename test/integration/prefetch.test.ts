/** A deployed release is on nodes before its first visitor comes; where it cannot be, the deploy says so and is done all the same. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

let cluster: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-prefetch-"));
  cluster = await startCell({ nodes: 3 });
}, 60_000);

afterAll(async () => {
  await cluster?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** Nodes that have the release unpacked. */
async function holders(digest: string): Promise<string[]> {
  const found: string[] = [];
  for (const node of ["n1", "n2", "n3"]) {
    const names = await readdir(join(cluster.state, "nodes", node, "releases")).catch(() => []);
    if (names.some((name) => name.includes(digest.slice("sha256:".length)))) found.push(node);
  }
  return found;
}

test("a deploy brings the release to two nodes, one of which starts it", async () => {
  const app = await writeApp(directory, "app", "hello");
  const { stdout } = await cli(["deploy", app, "--json", "--state", cluster.state]);
  const { release } = JSON.parse(stdout) as { release: string };
  const before = await holders(release);
  expect(before).toHaveLength(2);
  const { instance } = await cluster.warren.scheduler.ensure({ tenant: "app" });
  expect(before).toContain(instance!.node);
  expect(await holders(release)).toEqual(before);
}, 40_000);

test("where no node can take it, nothing is fetched, and the deploy is done", async () => {
  for (const node of ["n1", "n2", "n3"]) await cluster.warren.scheduler.cordonNode({ node });
  const app = await writeApp(directory, "later", "identity");
  const { code, stdout } = await cli(["deploy", app, "--json", "--state", cluster.state]);
  expect(code).toBe(0);
  expect(await holders((JSON.parse(stdout) as { release: string }).release)).toEqual([]);
}, 40_000);
