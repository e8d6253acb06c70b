/** What an operator reads and changes without a deploy, and what a deploy takes along; on a real cell, as it is typed. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli } from "../src/cli.ts";

let cell: TestCell;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-operator-"));
  cell = await startCell();
}, 60_000);

afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

const run = (...args: string[]) => cli([...args, "--state", cell.state]);

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(...args);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return stdout;
}

async function appOf(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  const app = join(directory, name);
  const all = { "package.json": JSON.stringify({ name, module: "index.ts" }), ...files };
  for (const [file, content] of Object.entries(all)) {
    await mkdir(dirname(join(app, file)), { recursive: true });
    await writeFile(join(app, file), content);
  }
  return app;
}

const linesOf = (text: string) => text.split("\n").filter(Boolean);

test("odd names, long paths and links arrive at the node as they were, secrets stay, flags of a command go along", async () => {
  const long = `${"d".repeat(120)}/${"e".repeat(200)}.txt`;
  const names = ["a\nb.txt", "-rf", "grüße-日本語.txt", "back\\slash", long];
  const app = await appOf("packed", {
    ...Object.fromEntries(names.map((name) => [name, `content of ${name}`])),
    ".env": "SECRET=1\n",
    ".npmrc": "//registry.example/:_authToken=secret\n",
    ".warrenignore": "notes/\n",
    "notes/todo": "x",
    "main.ts": `import { existsSync, readFileSync } from "node:fs";
      const read = (name) => existsSync(name) ? readFileSync(name, "utf8") : null;
      Bun.serve({ port: process.env.PORT, fetch: async (request) => Response.json({
        argv: process.execArgv, files: (await request.json()).map(read), a: process.env.A ?? null }) });`,
  });
  const lib = await appOf("lib", { "index.ts": "export const x = 1;" });
  await mkdir(join(app, "node_modules"));
  await symlink(lib, join(app, "node_modules", "lib"));
  await symlink(join(app, "grüße-日本語.txt"), join(app, "absolute"));
  await writeFile(join(directory, "vars.env"), "A=from file\nPORT=1\n");
  const command = ["--", "bun", "--smol", "main.ts"];
  const { code, stderr } = await cli([
    ...["deploy", app, "--state", cell.state, "--env-file", join(directory, "vars.env")],
    ...command,
  ]);
  expect(code).toBe(0);
  expect(stderr).toContain(".env stays here");
  expect(stderr).toContain(
    ".npmrc stays here, since a registry's token may be inside: !.npmrc in .warrenignore",
  );
  expect(stderr).toContain(".warrenignore leaves out 1");
  expect(stderr).toContain("node_modules/lib is a link to");
  const asked = [...names, "absolute", "node_modules/lib/index.ts", ".env", "notes/todo"];
  const answer = await cell.get("packed", "/", { method: "POST", body: JSON.stringify(asked) });
  expect(await answer.json()).toEqual({
    argv: ["--smol"],
    a: "from file",
    files: [
      ...names.map((name) => `content of ${name}`),
      "content of grüße-日本語.txt",
      "export const x = 1;",
      null,
      null,
    ],
  });
}, 60_000);

test("logs: all instances in the order written, one of them, the one before, and a line without an end", async () => {
  const app = await appOf("chatty", {
    "index.ts": `const id = process.env.WARREN_INSTANCE.slice(-6);
      process.stdout.write("begun by " + id);
      Bun.serve({ port: process.env.PORT, fetch(request) {
        const { pathname } = new URL(request.url);
        if (pathname === "/die") { console.error("\\x1b[2JFATAL 4711"); process.exit(9); }
        console.log(pathname);
        return new Response(id);
      } });`,
  });
  await ok("deploy", app, "--min", "2", "--max", "2");
  const instances = await waitUntil(
    async () => {
      const ready = await cell.ready("chatty");
      return ready.length === 2 ? ready.map(({ ref }) => ref!.id) : undefined;
    },
    { deadlineMs: 20_000, what: "two instances" },
  );
  const partials = await waitUntil(
    async () => {
      const lines = linesOf(await ok("logs", "chatty"));
      return lines.length === 2 ? lines : undefined;
    },
    { deadlineMs: 10_000, what: "a line of each" },
  );
  const begun = instances.map((id) => `${id.slice(-6)} | begun by ${id.slice(-6)}`);
  expect(partials.sort()).toEqual(begun.sort());

  // Both are asked, one after the other, until each has answered some.
  const said: string[] = [];
  const seen = new Map<string, number>();
  await waitUntil(
    async () => {
      const path = `/n${said.length}`;
      said.push(path);
      const id = await (await cell.get("chatty", path)).text();
      seen.set(id, (seen.get(id) ?? 0) + 1);
      return said.length >= 6;
    },
    { deadlineMs: 20_000, what: "requests" },
  );
  const merged = await waitUntil(
    async () => {
      const texts = linesOf(await ok("logs", "chatty", "--json")).map(
        (line) => JSON.parse(line) as { text: string },
      );
      const paths = texts.flatMap(({ text }) => /\/n\d+$/.exec(text)?.[0] ?? []);
      return paths.length === said.length ? paths : undefined;
    },
    { deadlineMs: 10_000, what: "all lines" },
  );
  expect([...merged].sort()).toEqual([...said].sort());
  const one = instances[0]!;
  const only = linesOf(await ok("logs", "chatty", "--instance", one.slice(-8), "--json"));
  expect(new Set(only.map((line) => (JSON.parse(line) as { instance: string }).instance))).toEqual(
    new Set([one]),
  );
  expect(await ok("logs", "chatty", "--since", "2020-01-01", "-n", "1")).toContain("|");

  await cell.get("chatty", "/die");
  const before = await waitUntil(
    async () => {
      const { code, stdout } = await run("logs", "chatty", "--previous");
      return code === 0 && stdout.includes("ended:") ? stdout : undefined;
    },
    { deadlineMs: 15_000, what: "the output of the one that died" },
  );
  expect(before).toContain("\x1b[2JFATAL 4711\n"); // a pipe gets it as it was written
  expect(linesOf(before).at(-1)).toBe("[warren] ended: crashed: exited with code 9");
  const events = await ok("events", "chatty", "--type", "transition", "-n", "50");
  expect(events).toContain("it said: \\x1b[2JFATAL 4711");
  expect((await run("logs", "chatty", "--instance", "0000000000")).code).toBe(3);
}, 90_000);

test("events: the last ones, by type, since when; unknown types are refused", async () => {
  const lines = linesOf(await ok("events", "-n", "3"));
  expect(lines).toHaveLength(3);
  const nodes = linesOf(await ok("events", "--type", "node", "--json")).map(
    (line) => JSON.parse(line) as object,
  );
  expect(nodes.length).toBeGreaterThan(0);
  expect(nodes.every((event) => "node" in event)).toBe(true);
  expect(await ok("events", "--since", "2999-01-01")).toBe("");
  const refused = await run("events", "--type", "nope");
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain("transition");
  const typed = cell.warren.events({ follow: false, tail: 1, types: ["nope"] });
  const error = await typed.next().catch((e: unknown) => e);
  expect((error as Error).message).toContain("there are no events of type");
}, 60_000);

test("env and set change what runs without a deploy, inspect tells it, and what does not start is rolled back", async () => {
  const app = await appOf("tuned", {
    "index.ts": `if (process.env.MODE === "bad") { console.error("no such MODE"); process.exit(4); }
      Bun.serve({ port: process.env.PORT, fetch: () => Response.json({ mode: process.env.MODE ?? null, key: process.env.API_KEY ?? null }) });`,
  });
  await ok("deploy", app, "--env", "API_KEY=k");
  const seen = async () => (await cell.get("tuned")).json();
  expect(await seen()).toEqual({ mode: null, key: "k" });
  expect(await ok("env", "set", "tuned", "MODE=one")).toContain("1 replaced");
  expect(await seen()).toEqual({ mode: "one", key: "k" });
  expect(linesOf(await ok("env", "ls", "tuned"))).toEqual(["API_KEY=k", "MODE=one"]);

  const bad = await run("env", "set", "tuned", "MODE=bad");
  expect(bad.code).toBe(4);
  expect(bad.stderr).toContain("did not take over");
  expect(bad.stderr).toContain("\n  no such MODE");
  expect(await seen()).toEqual({ mode: "one", key: "k" });
  const hint = /'warren (logs tuned --instance \w+)'/.exec(bad.stderr)![1]!;
  expect(await ok(...hint.split(" "))).toContain("no such MODE");
  expect(await ok("inspect", "tuned")).toContain("was rolled back");

  // What is edited then is what serves, not what failed.
  const mended = await run("env", "unset", "tuned", "MODE");
  expect(mended.code).toBe(0);
  expect(mended.stderr).toContain("was rolled back: this changes version");
  expect(await seen()).toEqual({ mode: null, key: "k" });
  expect((await run("env", "unset", "tuned", "MODE")).code).toBe(3);

  const set = await ok("set", "tuned", "--idle", "10m", "--priority", "7");
  expect(set).toContain("idle: the cluster's → 10m");
  const inspected = await ok("inspect", "tuned");
  expect(inspected).toMatch(/idle +10m +spec/);
  expect(inspected).toMatch(/grace +5s +cluster/);
  expect(inspected).toMatch(/API_KEY +k +spec/);
  expect(await ok("set", "tuned", "--unset", "idle")).toContain("idle: 10m → the cluster's");
  expect(await ok("set", "tuned", "--priority", "7")).toContain("as it was");
  for (const wrong of [
    ["set", "tuned"],
    ["set", "tuned", "--unset", "x"],
    ["env", "set", "tuned", "WARREN_X=1"],
  ]) {
    expect((await run(...wrong)).code).toBe(2);
  }
}, 90_000);

test("edits at once lose nothing", async () => {
  await ok(
    "deploy",
    await appOf("shared", {
      "index.ts": `Bun.serve({ port: process.env.PORT, fetch: () => new Response("x") });`,
    }),
  );
  const names = Array.from({ length: 8 }, (_, i) => `V${i}`);
  await Promise.all(
    names.map((name) => cell.warren.edit("shared", (spec) => Object.assign(spec.env, { [name]: "1" }))),
  );
  const { tenant } = await cell.warren.scheduler.getTenant({ tenant: "shared" });
  expect(Object.keys(tenant!.spec!.env).sort()).toEqual(names);
  const stale = cell.warren.apply(tenant!.spec!, tenant!.version - 1n);
  expect(await stale.then(() => "as it stands already")).toBe("as it stands already");
  const other = { ...tenant!.spec!, priority: 9 };
  const error = await cell.warren.apply(other, tenant!.version - 1n).catch((e: unknown) => e);
  expect((error as Error).message).toContain("read its spec again");
}, 60_000);
