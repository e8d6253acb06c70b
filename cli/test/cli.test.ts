import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { loadConfig } from "@warren/common/config";
import { fromDuration } from "@warren/common/time";
import { Isolation, TenantSpecSchema } from "@warren/proto/common";
import { messageOf, UserError } from "../src/exit.ts";
import { age, bytes } from "../src/output.ts";
import { agentSchema } from "../src/processes/schemas.ts";
import { missingDependencies, readSpec, type SpecFlags } from "../src/spec.ts";
import { coresOption, countOption, sizeOption } from "../src/verb.ts";

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

  test("has people's units in package.json and in a file, whose fields win by either of their names", async () => {
    const directory = await app("units", {
      warren: { idle: { stopAfter: "5m" }, limits: { memoryBytes: "256m" }, nodeLabels: { a: "1" } },
    });
    const file = join(root, "units.json");
    await writeFile(file, JSON.stringify({ limits: { cpu_millis: "0.5" }, node_labels: { b: "2" } }));
    expect(readSpec(directory, {}).limits?.memoryBytes).toBe(2n ** 28n);
    const spec = readSpec(directory, { spec: file });
    expect(fromDuration(spec.idle?.stopAfter, 0)).toBe(300_000);
    expect(spec.limits).toMatchObject({ memoryBytes: 0n, cpuMillis: 500 });
    expect(spec.nodeLabels).toEqual({ b: "2" });
    await writeFile(file, JSON.stringify({ limits: { memoryBytes: "256q" } }));
    expect(() => readSpec(directory, { spec: file })).toThrow(
      `${file}: limits.memory_bytes: "256q" is not a size like 256m or 1GiB`,
    );
  });

  test("flags for isolation, limits, readiness and liveness win field by field", async () => {
    const directory = await app("bounded", {
      warren: {
        isolation: "ISOLATION_NAMESPACE",
        limits: { memoryBytes: "1000", pids: 7 },
        readiness: { kind: "READINESS_KIND_PORT", path: "/ready" },
        liveness: { path: "/live", threshold: 5 },
      },
    });
    const from = (flags: SpecFlags) => toJson(TenantSpecSchema, readSpec(directory, flags));
    const own = from({});
    expect(own).toMatchObject({ isolation: "ISOLATION_NAMESPACE", limits: { pids: 7 } });
    const flags = {
      isolation: "cgroup",
      memory: 2 ** 28,
      cpu: 500,
      openFiles: 64,
      disk: 2 ** 40,
      readyKind: "message",
      ready: "",
      live: "/healthz",
      liveInterval: 1_000,
      heartbeat: 2_500,
    } as const;
    expect(from(flags)).toEqual({
      ...(own as object),
      isolation: "ISOLATION_CGROUP",
      limits: { memoryBytes: "268435456", cpuMillis: 500, pids: 7, openFiles: 64, diskBytes: `${2 ** 40}` },
      readiness: { kind: "READINESS_KIND_MESSAGE" },
      liveness: { path: "/healthz", threshold: 5, interval: "1s", heartbeat: "2.500s" },
    });
    expect(from({ isolation: "auto", pids: 0 })).toMatchObject({ limits: { memoryBytes: "1000" } });
    expect(readSpec(directory, { isolation: "auto" }).isolation).toBe(Isolation.UNSPECIFIED);
    expect(readSpec(await app("free", {}), {}).limits).toBeUndefined();
  });

  test("without package.json the directory names it", async () => {
    expect(readSpec(await app("plain"), {}).key).toBe("plain");
  });

  test.each([
    ["Upper", undefined, "must be a DNS label"],
    ["a", "{", "package.json"],
    ["b", { warren: [] }, '"warren" must be an object'],
    ["c", { warren: { keyy: "x" } }, "package.json#warren: keyy: there is no such field; did you mean key?"],
    [
      "d",
      { warren: { idle: { stopAfter: "soon" } } },
      'package.json#warren: idle.stop_after: "soon" is not a duration like 250ms, 30s, 5m or 1h',
    ],
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

test("flags that are no cores, sizes or counts say what they must be", () => {
  expect(["500m", "0.5", "2", "1.25"].map(coresOption)).toEqual([500, 500, 2000, 1250]);
  expect(["256m", "1g", "512MiB", "4096"].map(sizeOption)).toEqual([2 ** 28, 2 ** 30, 2 ** 29, 4096]);
  expect(["0", "100"].map(countOption)).toEqual([0, 100]);
  for (const text of ["", "x", "-1", "1 core", "0.5g"]) expect(() => coresOption(text)).toThrow("cores");
  for (const text of ["", "x", "-1", "1MB"]) expect(() => sizeOption(text)).toThrow("size");
  for (const text of ["", "x", "-1", "1.5", "4294967296"]) expect(() => countOption(text)).toThrow("whole");
});

test("times and sizes are short", () => {
  expect([5, 1_500, 65_000, 3_700_000].map(age)).toEqual(["5ms", "1.5s", "1m5s", "1h1m"]);
  expect([2_048, 5 * 2 ** 20, 3 * 2 ** 30].map(bytes)).toEqual(["2.0 KiB", "5.0 MiB", "3.0 GiB"]);
});

test("an agent's settings for isolation, starts, releases and logs; what is wrong is named", () => {
  const needed = { credentials: "c", node: "n1", runtime: "/run/warren/n1", scheduler: "https://s:1" };
  const load = (flags: object, env = {}) =>
    loadConfig(agentSchema, { process: "agent", flags: { ...needed, ...flags }, env });
  expect(load({})).toMatchObject({
    isolation: "auto",
    uidBase: 2_000_000_000,
    simultaneousStarts: 4,
    maxActive: 0,
    logFiles: 4,
  });
  expect(load({ advertise: "https://h1:7421", tenantHost: "10.0.0.1" })).toMatchObject({
    advertise: "https://h1:7421",
    tenantHost: "10.0.0.1",
  });
  expect(load({ releaseCache: "20g", logFileSize: "1MiB", startsPerSecond: "2.5" })).toMatchObject({
    releaseCache: 20 * 2 ** 30,
    logFileSize: 2 ** 20,
    startsPerSecond: 2.5,
  });
  expect(load({}, { WARREN_AGENT_ISOLATION: "user" }).isolation).toBe("user");
  expect(() => load({ isolation: "vm" })).toThrow("--isolation: ");
  expect(() => load({ simultaneousStarts: "0" })).toThrow("--simultaneous-starts: ");
  expect(() => load({ startsPerSecond: "0" })).toThrow("--starts-per-second: ");
  expect(() => load({ releaseCache: "much" })).toThrow("--release-cache: must be a size");
});

const bin = join(import.meta.dir, "..", "bin", "warren");

describe("the executable", () => {
  test("--help, --version, and every verb's --help", async () => {
    const run = (...args: string[]) => Bun.spawnSync([bin, ...args], { stdout: "pipe", stderr: "pipe" });
    const help = run("--help");
    expect(help.exitCode).toBe(0);
    const verbs = [...help.stdout.toString().matchAll(/^ {2}([a-z]+)(?:\|[a-z]+)? .*$/gm)].map(
      (match) => match[1]!,
    );
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
        "ca",
        "version",
      ]),
    );
    expect(run("--version").stdout.toString()).toMatch(/^\d+\.\d+\.\d+\n$/);
    for (const verb of ["up", "deploy", "ps", "nodes", "logs", "scheduler", "agent"]) {
      const shown = run(verb, "--help");
      expect([shown.exitCode, shown.stdout.toString()]).toEqual([
        0,
        expect.stringContaining(`Usage: warren ${verb}`),
      ]);
    }
  }, 30_000);

  test.each<string[]>([
    ["ps", "--scheduler", "localhost:7420"],
    ["ps", "--scheduler", "http://localhost:7420"],
    ["usage", "--scheduler", "https://localhost:7420", "--metering", "localhost"],
  ])("%s %s %s: a URL that is none of ours is refused in a sentence", (...args) => {
    const { exitCode, stderr } = Bun.spawnSync([bin, ...args, "--credentials", root]);
    expect(stderr.toString()).toMatch(/^error: "\S+" is no URL of a Warren process: [^\n]*\n$/);
    expect(exitCode).toBe(2);
  });

  test("what the system refuses is told in its words, our own defects with their place", async () => {
    const missing = await readFile(join(root, "none")).catch((error: unknown) => error);
    expect(messageOf(missing)).toMatch(/^ENOENT: no such file or directory, open '.*none'$/);
    expect(messageOf(new TypeError("a defect"))).toContain("cli.test.ts");
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
