/** Files that stay, in a whole cell: a SQLite database in a volume, over everything that ends an instance or a node. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { NodeState } from "@warren/proto/common";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

/** Adds a row and answers how many there are. */
const app = `
import { Database } from "bun:sqlite";
const db = new Database("data/app.db", { create: true });
db.run("PRAGMA journal_mode = WAL");
db.run("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)");
Bun.serve({ port: process.env.PORT, fetch() {
  db.run("INSERT INTO notes (text) VALUES ('x')");
  return Response.json(db.query("SELECT count(*) AS n FROM notes").get().n);
} });`;

let cell: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-volumes-"));
  await chmod(directory, 0o711); // so that tenants can have uids of their own, where this is root
  const state = join(directory, "state");
  await mkdir(state, { mode: 0o711 });
  await mkdir(join(directory, "notes"));
  await writeFile(join(directory, "notes/index.ts"), app);
  const volumes = [{ name: "data", path: "data", sizeBytes: `${64 * 1024 * 1024}` }];
  await writeFile(
    join(directory, "notes/package.json"),
    JSON.stringify({ name: "notes", warren: { volumes } }),
  );
  cell = await startCell({ state, nodes: 2 });
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  expect(cell?.left()).toEqual([]);
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
const rows = async (): Promise<number> => (await cell.get("notes")).json();
const deadline = (what: string) => ({ deadlineMs: 40_000, what });

async function kill(name: string): Promise<void> {
  const child = cell.cell.child(name);
  const pid = child.pid!;
  process.kill(pid, "SIGKILL");
  await waitUntil(() => child.pid !== pid, deadline(`${name} to be started again`));
  // A gateway that has not come back does not hear of a stop, and passes a request on to what is about to go.
  await waitUntil(
    () =>
      cell.warren.scheduler.getStats({}, { timeoutMs: 2_000 }).then(
        ({ gateways, nodesUp }) => gateways === 1 && nodesUp === 2,
        () => false,
      ),
    deadline("gateway and nodes to be back"),
  );
}

/** Of the volume itself, not of copies that are left over. */
const volume = async () => (await json("volumes", "notes")).find(({ leftOver }) => !leftOver);

test("what an app wrote is there after stops, deploys, kill -9 of its agent and of the scheduler", async () => {
  await text("deploy", join(directory, "notes"));
  expect(await rows()).toBe(1);
  const { node } = (await volume()).volume;
  await text("stop", "notes");
  expect(await rows()).toBe(2);
  await writeFile(join(directory, "notes/index.ts"), `${app}// another version\n`);
  await text("deploy", join(directory, "notes"));
  expect(await rows()).toBe(3);
  await kill(`agent-${node}`);
  await kill("scheduler");
  await waitUntil(
    () => run("stop", "notes").then(({ code }) => code === 0),
    deadline("the tenant to be stopped"),
  );
  expect(await rows()).toBe(4);
  expect((await volume()).volume.node).toBe(node);
  expect(await text("explain", "notes")).toContain(`Its volume data lies on node ${node}`);
}, 120_000);

test("it is measured, and billed while nothing runs", async () => {
  await text("stop", "notes");
  const { usedBytes, sizeBytes } = await volume();
  expect(Number(usedBytes)).toBeGreaterThan(4_096);
  expect(sizeBytes).toBe(`${64 * 1024 * 1024}`);
  await waitUntil(
    async () => Number((await json("usage", "notes"))[0]?.volumeByteSeconds ?? 0) > 0,
    deadline("its byte-seconds in the ledger"),
  );
}, 60_000);

test("it goes only when somebody says so, and not while it is in use", async () => {
  await rows();
  expect((await run("volumes", "rm", "notes", "data")).stderr).toContain("add --yes");
  expect((await run("volumes", "rm", "notes", "data", "--yes")).stderr).toContain("'warren stop notes'");
  expect((await run("rm", "notes")).stderr).toContain("--keep-volumes or --remove-volumes");
  expect((await run("deploy", join(directory, "notes"), "--max", "2")).stderr).toContain("one at most");
}, 60_000);

test("a node that is gone for good: its volume comes back elsewhere as it was backed up, and its age is told", async () => {
  const saved = await rows(); // in the write-ahead log of a live database
  await text("volumes", "backup", "notes", "data");
  expect(await rows()).toBe(saved + 1);
  const home: string = (await volume()).volume.node;
  await cell.remember();
  await cell.cell.child(`agent-${home}`).stop();
  await waitUntil(
    async () => {
      const { nodes } = await cell.warren.scheduler.listNodes({});
      return nodes.find(({ name }) => name === home)?.state === NodeState.LOST;
    },
    deadline(`${home} to be lost`),
  );
  const refused = await run("ensure", "notes", "--timeout", "2s");
  expect(refused.stderr).toContain("its volume lies on another node");
  expect(await text("explain", "notes")).toContain(
    `'warren forget ${home}' lets the backup come back elsewhere`,
  );
  expect(await text("forget", home)).toMatch(
    /volume data of notes comes back with the next start as it was \S+ ago/,
  );
  expect(await text("volumes", "notes")).toMatch(/to be restored as it was \S+ ago/);
  expect(await rows()).toBe(saved + 1);
  const { node, restoredAsOf } = (await volume()).volume;
  expect(node).not.toBe(home);
  expect(restoredAsOf).toBeTruthy();
  expect(await text("explain", "notes")).toContain("It was restored as it was at");
  const changes = (await json("events", "notes", "-n", "1000")).flatMap(
    (event) => event.volume?.change ?? [],
  );
  expect(changes).toEqual([
    "VOLUME_CHANGE_CREATED",
    "VOLUME_CHANGE_BACKED_UP",
    "VOLUME_CHANGE_DISPLACED",
    "VOLUME_CHANGE_RESTORED",
  ]);
}, 120_000);

test("a backup is restored on demand; with its tenant it goes for good if that is said", async () => {
  const before = await rows();
  await text("volumes", "backup", "notes", "data");
  await rows();
  await text("stop", "notes");
  await text("volumes", "restore", "notes", "data", "--yes");
  expect(await rows()).toBe(before + 1);
  expect((await json("volumes", "notes")).filter(({ leftOver }) => leftOver)).toHaveLength(1);
  await text("rm", "notes", "--remove-volumes");
  await waitUntil(
    async () => (await json("volumes")).length === 0,
    deadline("all copies on nodes that report to go"),
  );
}, 60_000);
