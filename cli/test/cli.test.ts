import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromDuration } from "@warren/common/time";
import { UserError } from "../src/exit.ts";
import { age, bytes } from "../src/output.ts";
import { missingDependencies, readSpec } from "../src/spec.ts";

let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "warren-cli-"));
});

afterAll(() => rm(root, { recursive: true, force: true }));

async function app(name: string, manifest?: unknown): Promise<string> {
  const directory = join(root, name);
  await mkdir(directory, { recursive: true });
  if (manifest !== undefined) {
    await writeFile(
      join(directory, "package.json"),
      typeof manifest === "string" ? manifest : JSON.stringify(manifest),
    );
  }
  return directory;
}

describe("a tenant's spec", () => {
  test("comes from package.json#warren, a file over it, flags over both", async () => {
    const directory = await app("shop", {
      name: "@acme/shop",
      warren: { env: { A: "package" }, readiness: { path: "/healthz" }, idle: { stopAfter: "60s" } },
    });
    expect(readSpec(directory, {})).toMatchObject({
      key: "shop",
      env: { A: "package" },
      readiness: { path: "/healthz" },
    });
    const file = join(root, "spec.json");
    await writeFile(file, JSON.stringify({ env: { A: "file", B: "file" }, key: "store" }));
    const spec = readSpec(directory, {
      spec: file,
      env: ["B=flag=x"],
      idle: 1_500,
      command: ["bun", "x.ts"],
    });
    expect(spec).toMatchObject({ key: "store", env: { A: "file", B: "flag=x" }, command: ["bun", "x.ts"] });
    expect(spec.readiness?.path).toBe("/healthz");
    expect(fromDuration(spec.idle?.stopAfter, 0)).toBe(1_500);
    expect(readSpec(directory, { name: "other" }).key).toBe("other");
  });

  test("without package.json the directory names it", async () => {
    expect(readSpec(await app("plain"), {}).key).toBe("plain");
  });

  test.each([
    ["Upper", undefined, "must be a DNS label"],
    ["a", "{", "package.json"],
    ["b", { warren: [] }, '"warren" must be an object'],
    ["c", { warren: { keyy: "x" } }, "package.json#warren"],
    ["d", { warren: { idle: { stopAfter: "soon" } } }, "package.json#warren"],
  ])("what is wrong is named: %s", async (name, manifest, message) => {
    const directory = await app(name, manifest);
    expect(() => readSpec(directory, {})).toThrow(UserError);
    expect(() => readSpec(directory, {})).toThrow(message);
  });

  test("an --env without a name", async () => {
    const directory = await app("env", {});
    expect(() => readSpec(directory, { env: ["=x"] })).toThrow("--env =x: must be NAME=value");
  });

  test("dependencies without node_modules are noticed", async () => {
    const directory = await app("needy", { dependencies: { hono: "1" } });
    expect(missingDependencies(directory)).toBe(true);
    await mkdir(join(directory, "node_modules"));
    expect(missingDependencies(directory)).toBe(false);
  });
});

test("times and sizes are short", () => {
  expect([5, 1_500, 65_000, 3_700_000].map(age)).toEqual(["5ms", "1.5s", "1m5s", "1h1m"]);
  expect([2_048, 5 * 2 ** 20, 3 * 2 ** 30].map(bytes)).toEqual(["2.0 KiB", "5.0 MiB", "3.0 GiB"]);
});

const bin = join(import.meta.dir, "..", "bin", "warren");

describe("the executable", () => {
  test("--help, --version, and every verb's --help", async () => {
    const run = (...args: string[]) => Bun.spawnSync([bin, ...args], { stdout: "pipe", stderr: "pipe" });
    const help = run("--help");
    expect(help.exitCode).toBe(0);
    const verbs = [...help.stdout.toString().matchAll(/^ {2}([a-z]+) .*$/gm)].map((match) => match[1]!);
    expect(verbs).toEqual(
      expect.arrayContaining([
        "up",
        "deploy",
        "ps",
        "ensure",
        "stop",
        "restart",
        "rm",
        "logs",
        "events",
        "nodes",
        "usage",
        "version",
      ]),
    );
    expect(run("--version").stdout.toString()).toMatch(/^\d+\.\d+\.\d+\n$/);
    for (const verb of ["up", "deploy", "ps", "logs", "scheduler", "agent"]) {
      const shown = run(verb, "--help");
      expect([shown.exitCode, shown.stdout.toString()]).toEqual([
        0,
        expect.stringContaining(`Usage: warren ${verb}`),
      ]);
    }
  }, 30_000);

  test.each(["bash", "zsh", "fish"])("completion for %s names the verbs and their flags", (shell) => {
    const { stdout, exitCode } = Bun.spawnSync([bin, "completion", shell]);
    expect(exitCode).toBe(0);
    for (const word of ["deploy", "max-concurrent", "follow"]) expect(stdout.toString()).toContain(word);
    if (shell === "bash") expect(Bun.spawnSync(["bash", "-n"], { stdin: stdout }).exitCode).toBe(0);
  });

  test("what the caller's directory says does not count", async () => {
    const directory = await app("trap");
    await writeFile(join(directory, "bunfig.toml"), 'preload = ["./boom.ts"]\n');
    await writeFile(join(directory, "boom.ts"), 'throw new Error("boom")');
    await writeFile(join(directory, ".env"), "WARREN_URL=https://elsewhere\n");
    const { exitCode, stderr } = Bun.spawnSync([bin, "ps", "--state", root], {
      cwd: directory,
      stderr: "pipe",
      env: { PATH: process.env.PATH },
    });
    expect(stderr.toString()).toContain("no cell is known here");
    expect(exitCode).toBe(5);
  });
});
