/** The operator's verbs against a real cell, as a user types them; each with --json. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { writeApp } from "../src/apps.ts";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli, cliOnTerminal, warrenBin } from "../src/cli.ts";

let cell: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-verbs-"));
  cell = await startCell();
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** Runs a verb with --json; answers what it printed, value by value. */
async function json(...args: string[]): Promise<Record<string, unknown>[]> {
  const { code, stdout, stderr } = await cli([...args, "--json", "--state", cell.state]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return stdout
    .trim()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const text = async (tenant: string) => (await cell.get(tenant)).text();

test("deploy, ensure, ps, deploy again (restarts it), logs, stop, restart, rm", async () => {
  const app = await writeApp(directory, "shop", "hello");
  const [deployed] = await json("deploy", app, "--env", "GREETING=hi");
  expect(deployed).toMatchObject({ tenant: "shop", url: cell.url("shop", ""), replaced: 0 });
  const [ensured] = await json("ensure", "shop");
  expect(ensured).toMatchObject({ tenant: "shop", cold: true, node: "n1" });
  expect(await text("shop")).toStartWith("hello from");
  const [instance] = await json("ps", "shop");
  expect(instance).toMatchObject({
    ref: { tenant: "shop", id: ensured!.instance },
    state: "INSTANCE_STATE_READY",
  });

  await writeFile(
    join(app, "index.ts"),
    `console.log("second release"); Bun.serve({ port: process.env.PORT, fetch: () => new Response("second " + process.env.GREETING) });`,
  );
  const [again] = await json("deploy", app, "--env", "GREETING=hey");
  expect(again).toMatchObject({ tenant: "shop", replaced: 1 });
  expect(again!.release).not.toBe(deployed!.release);
  expect(await text("shop")).toBe("second hey");
  expect(await json("logs", "shop")).toMatchObject([{ stream: "stdout", text: "second release" }]);

  const [restarted] = await json("restart", "shop");
  expect(restarted!.instance).not.toBe(ensured!.instance);
  expect(await json("stop", "shop")).toEqual([{ tenant: "shop", stopped: [restarted!.instance] }]);
  expect(await json("ps", "shop")).toEqual([
    { tenant: "shop", state: "cold", version: 2, url: cell.url("shop", "") },
  ]);
  expect(await json("rm", "shop")).toEqual([{ tenant: "shop", removed: true }]);
  expect((await cell.get("shop")).status).toBe(404);
}, 60_000);

test("events tells the whole life, usage what it used, nodes and version what there is", async () => {
  await json("deploy", await writeApp(directory, "told", "hello"));
  await cell.get("told");
  await json("stop", "told");
  const events = (await waitUntil(
    async () => {
      const seen = await json("events", "told");
      return seen.some(
        (event) => (event.transition as { to?: string } | undefined)?.to === "INSTANCE_STATE_EXITED",
      )
        ? seen
        : undefined;
    },
    { deadlineMs: 10_000, what: "the end of told among the events" },
  )) as { release?: object; placement?: object; transition?: { to: string; exit?: { reason: string } } }[];
  const states = events.flatMap(({ transition }) => (transition ? [transition.to.slice(15)] : []));
  // On a busy machine it may have been frozen in between: READY again, in another mode.
  expect([...new Set(states)]).toEqual(["STARTING", "READY", "STOPPING", "EXITED"]);
  // Its gateway tells of its traffic when it likes, be it after the end.
  const last = events.findLast(({ transition }) => transition);
  expect(last?.transition?.exit?.reason).toBe("EXIT_REASON_KILLED");
  expect(events.some(({ release }) => release) && events.some(({ placement }) => placement)).toBe(true);
  const usage = await waitUntil(async () => (await json("usage", "told"))[0], {
    deadlineMs: 10_000,
    what: "usage of told",
  });
  expect(usage).toMatchObject({ tenant: "told", starts: "1", instances: "1" });
  expect(await json("nodes")).toMatchObject([{ name: "n1", state: "NODE_STATE_UP" }]);
  const [versions] = await json("version");
  expect(versions!.warren).toBe(versions!.scheduler);
}, 60_000);

test("logs -f and events -f follow, and end at Ctrl-C with code 130", async () => {
  await json("deploy", await writeApp(directory, "followed", "exitsAtOnce"));
  const follow = (...args: string[]) =>
    Bun.spawn([warrenBin, ...args, "-f", "--json", "--state", cell.state], {
      stdout: "pipe",
      stderr: "pipe",
    });
  for (const [verb, wanted] of [
    ["logs", "I am not in the mood"],
    ["events", "EXIT_REASON_CRASHED"],
  ] as const) {
    const child = follow(verb, "followed");
    let seen = "";
    const reading = (async () => {
      for await (const chunk of child.stdout) seen += new TextDecoder().decode(chunk);
    })();
    // Again and again: whether the follower was there in time is not known otherwise.
    await waitUntil(
      async () => {
        await cell.warren.scheduler.clearBackoff({ tenant: "followed" });
        await cell.warren.scheduler.ensure({ tenant: "followed" }).catch(() => undefined);
        return seen.includes(wanted);
      },
      { deadlineMs: 15_000, what: `${wanted} in ${verb} -f` },
    );
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    await reading;
  }
}, 60_000);

test("a broken release is rolled back by itself, rollback and reload on demand, explain, stats, top", async () => {
  const app = await writeApp(directory, "rolled", "hello");
  const [first] = await json("deploy", app);
  await cell.get("rolled");
  await writeFile(join(app, "index.ts"), `console.log("broken"); process.exit(3);`);
  const broken = await cli(["deploy", app, "--state", cell.state]);
  expect(broken.code).toBe(4);
  expect(broken.stderr).toContain("did not take over");
  expect(broken.stderr).toContain("serves on");
  expect(await text("rolled")).toStartWith("hello from");
  expect((await json("explain", "rolled"))[0]!.text).toContain("rolled back");
  expect(await json("clear-backoff", "rolled")).toEqual([{ tenant: "rolled", cleared: true }]);

  await writeFile(
    join(app, "index.ts"),
    `Bun.serve({ port: process.env.PORT, fetch: () => new Response("better") });`,
  );
  expect((await json("deploy", app))[0]).toMatchObject({ replaced: 1 });
  expect(await text("rolled")).toBe("better");
  const [back] = await json("rollback", "rolled");
  expect((back!.spec as { release: string }).release).toBe(first!.release as string);
  expect(await text("rolled")).toStartWith("hello from");
  expect((await json("releases", "rolled")).length).toBe(3);
  const newest = (await json("releases", "rolled"))[0]!.digest as string;
  const [to] = await json("rollback", "rolled", "--to", newest.slice(7, 17));
  expect((to!.spec as { release: string }).release).toBe(newest);
  const [reloaded] = await json("reload", "rolled");
  expect(reloaded!.instances).toHaveLength(1);
  expect((await cli(["rollback", "rolled", "--to", "nothing", "--state", cell.state])).stderr).toContain(
    "has no release nothing",
  );

  const [stats] = await json("stats");
  expect(stats).toMatchObject({ cell: "local", maxConcurrent: 100 });
  expect((stats!.counts as Record<string, string>).rollouts).toBeDefined();
  const top = await cli(["top", "--state", cell.state]);
  expect(top.code).toBe(0);
  expect(top.stdout).toContain("rolled");
  expect(top.stdout).toContain("PREDICTED");
}, 90_000);

test("ensure, restart, stop and rm take several tenants: each is reported, and a failure ends none of the others", async () => {
  const names = ["one", "two", "three"];
  for (const name of names) await json("deploy", await writeApp(directory, name, "hello"));
  const sorted = (rows: Record<string, unknown>[]) => rows.map(({ tenant }) => tenant).sort();
  for (const verb of ["ensure", "restart", "stop"])
    expect(sorted(await json(verb, ...names, "one"))).toEqual(names.toSorted());
  const { code, stdout, stderr } = await cli(["rm", "one", "nope", "two", "three", "--state", cell.state]);
  expect([code, stderr.trim().split("\n").length]).toEqual([3, 1]);
  expect(stderr).toContain("error: nope: ");
  for (const name of names) expect(stdout).toContain(`removed ${name}\n`);
  expect((await cli(["ps", "one", "--state", cell.state])).code).toBe(3);
}, 60_000);

test("ps, nodes and top fit a narrow terminal, and show all with --wide", async () => {
  await json("deploy", await writeApp(directory, "narrow", "hello"));
  await cell.get("narrow");
  for (const verb of [["ps"], ["nodes"], ["top", "--count", "1"]]) {
    for (const columns of [80, 50]) {
      const shown = await cliOnTerminal([...verb, "--state", cell.state], columns);
      const widths = shown.split(/\r?\n/).map((line) => Bun.stringWidth(line));
      expect(shown).toContain("STATE");
      expect(Math.max(...widths)).toBeLessThanOrEqual(columns);
    }
  }
  expect(await cliOnTerminal(["ps", "--wide", "--state", cell.state], 50)).toContain("ISOLATION");
}, 60_000);

test("cordon, drain, uncordon: nothing new on the node, and nothing left", async () => {
  await json("deploy", await writeApp(directory, "moved", "hello"), "--keep-warm");
  await cell.get("moved");
  expect(await json("cordon", "n1")).toEqual([{ node: "n1", done: "cordoned" }]);
  const refused = await cli(["ensure", "nowhere", "--state", cell.state]);
  expect(refused.code).toBe(3);
  const [drained] = await json("drain", "n1", "--deadline", "2s");
  expect(drained).toMatchObject({ node: "n1", moved: 0 });
  expect(await json("ps", "moved")).toMatchObject([{ tenant: "moved", state: "cold" }]);
  expect((await json("nodes", "n1"))[0]).toMatchObject({ cordoned: true });
  await json("uncordon", "n1");
  expect(await text("moved")).toStartWith("hello from");
  const nobody = await cli(["drain", "nobody", "--state", cell.state]);
  expect(nobody.code).toBe(3);
}, 60_000);
