/** Releases on the rung that the node has, from `warren up` to the gateway. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState, Isolation, type Transition } from "@warren/proto/common";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

const uidBase = 2_000_000_000;
const isRoot = process.getuid?.() === 0;

let directory: string;
let state: string;
let cell: TestCell;

const at = (...args: string[]) => [...args, "--state", state];

/** A cell in a state directory of that mode. */
async function open(mode: number): Promise<void> {
  directory = await mkdtemp(join(tmpdir(), "warren-apps-"));
  state = await mkdtemp(join(tmpdir(), "warren-rung-"));
  chmodSync(state, mode);
  cell = await startCell({ state });
}

/** Stops it; nothing of it may be left: no process, no cgroup. */
async function close(): Promise<void> {
  await cell.stop();
  expect(cell.left()).toEqual([]);
  expect(processesNaming(state)).toEqual([]);
  const mark = createHash("sha256")
    .update(join(state, "nodes", "n1"))
    .digest("hex")
    .slice(0, 8);
  const found = Bun.spawnSync(["find", "/sys/fs/cgroup", "-name", `warren-n1-${mark}*`]);
  expect(found.stdout.toString()).toBe("");
  for (const path of [directory, state]) await rm(path, { recursive: true, force: true });
}

/** Pids of processes with that text among their arguments. */
function processesNaming(text: string): string[] {
  const { stdout } = Bun.spawnSync(["ps", "-A", "-ww", "-o", "pid=,args="]);
  return stdout
    .toString()
    .split("\n")
    .filter((line) => line.includes(text));
}

/** Deploys an app that tells its uid and its pid, falls ill and eats as it is asked to. */
async function deploy(name: string, ...flags: string[]): Promise<void> {
  const { stderr, code } = await cli(at("deploy", await writeApp(directory, name, "moody"), ...flags));
  expect([stderr, code]).toEqual(["", 0]);
}

async function whoIs(tenant: string): Promise<{ uid: number; pid: number }> {
  const response = await cell.get(tenant);
  expect(response.status).toBe(200);
  return (await response.json()) as { uid: number; pid: number };
}

/** The end of the tenant's instance, as its events tell it. */
function endOf(tenant: string): Promise<Transition> {
  return waitUntil(
    async () => {
      for await (const { payload } of cell.warren.events({ tenant, after: 0n, follow: false })) {
        if (payload.case === "transition" && payload.value.to === InstanceState.EXITED) return payload.value;
      }
      return undefined;
    },
    { deadlineMs: 20_000, what: `the end of ${tenant} among the events` },
  );
}

describe.skipIf(!isRoot)("a cell whose state directory other users can pass through (needs root)", () => {
  beforeAll(() => open(0o755), 60_000);
  afterAll(close, 60_000);

  test("rule 6: a release runs with a uid of its own in a namespace, and answers through the gateway", async () => {
    await deploy("own", "--cpu", "500m", "--pids", "200", "--open-files", "256", "--disk", "64m");
    await deploy("other");
    const uids = new Set<number>();
    for (const tenant of ["own", "other"]) {
      const { uid } = await whoIs(tenant);
      const [instance] = await cell.ready(tenant);
      expect(instance).toMatchObject({ isolation: Isolation.NAMESPACE });
      expect(uid).toBe(uidBase + instance!.endpoint!.port);
      expect(statSync(`/proc/${instance!.pid}`).uid).toBe(uid);
      uids.add(uid);
    }
    expect(uids.size).toBe(2);
    expect((await cli(at("ps", "own"))).stdout).toContain("namespace");
  }, 30_000);

  test("what is the cell's own stays closed to others", () => {
    expect(statSync(state).mode & 0o777).toBe(0o755);
    const passed = ["nodes", "volumes"];
    for (const name of passed) expect(statSync(join(state, name)).mode & 0o777).toBe(0o711);
    const closed = readdirSync(state).filter((name) => !passed.includes(name));
    expect(closed).toContain("credentials");
    for (const name of closed) expect([name, statSync(join(state, name)).mode & 0o077]).toEqual([name, 0]);
  });

  test("rule 6: one that eats more than its memory is ended alone, and it is said why", async () => {
    await deploy("calm");
    await deploy("glutton", "--memory", "128m");
    const before = await whoIs("calm");
    await whoIs("glutton");
    await cell.get("glutton", "/eat").catch(() => undefined); // it may be cut with its tenant
    const { exit } = await endOf("glutton");
    expect(exit?.reason).toBe(ExitReason.OOM_KILLED);
    expect(exit?.message).not.toBe("");
    expect(await whoIs("calm")).toEqual(before);
    expect((await cell.warren.scheduler.explain({ tenant: "glutton" })).text).toContain("oom-killed");
    expect((await cli(at("events", "glutton"))).stdout).toContain("oom-killed");
  }, 60_000);

  test("one that fails its liveness path is stopped as unhealthy, and the next request starts a new one", async () => {
    await deploy("mood", "--live", "/healthz", "--live-interval", "200ms");
    await whoIs("mood");
    const [before] = await cell.ready("mood");
    await cell.get("mood", "/sicken");
    const end = await endOf("mood");
    expect(end.exit?.reason).toBe(ExitReason.UNHEALTHY);
    expect(end.instance?.id).toBe(before!.ref!.id);
    await whoIs("mood");
    const [after] = await cell.ready("mood");
    expect(after!.ref!.id).not.toBe(before!.ref!.id);
    expect((await cell.get("mood", "/healthz")).status).toBe(200);
  }, 60_000);
});

describe("a cell whose state directory other users cannot reach", () => {
  beforeAll(() => open(0o700), 60_000);
  afterAll(close, 60_000);

  test("runs tenants as the agent's user, and says so once", async () => {
    for (const tenant of ["a", "b", "c"]) {
      await deploy(tenant);
      expect((await whoIs(tenant)).uid).toBe(process.getuid!());
    }
    const log = readFileSync(join(state, "logs", "agent-n1.log"), "utf8");
    if (process.env.WARREN_LOG !== "silent")
      expect(log.match(/not isolated from each other/g)).toHaveLength(1);
    const { stdout } = await cli(at("nodes", "n1"));
    expect(stdout).toMatch(/^isolation +none$/m);
    expect(stdout).toMatch(/^lacks +no isolation: /m);
  }, 30_000);

  test("what needs a rung is refused at once, and told which and why", async () => {
    await deploy("limited", "--memory", "128m");
    const { stderr, code } = await cli(at("ensure", "limited"));
    const sentence = "isolation rung cgroup missing (its limits need it): 1 node";
    expect(stderr).toContain(`no node can take tenant limited: ${sentence}`);
    expect(code).toBe(4);
    expect((await cell.warren.scheduler.explain({ tenant: "limited" })).text).toContain(sentence);
  }, 30_000);
});
