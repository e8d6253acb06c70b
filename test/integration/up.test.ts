/** `warren up` itself: killed, started twice, stopped while it starts. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outputOf } from "@warren/cli/json/outputs";
import { outputProblem } from "@warren/cli/json/shape";
import { startTimeOf } from "@warren/common/process";
import { pause, waitUntil } from "@warren/common/time";
import { writeApp } from "../src/apps.ts";
import { cli, warrenBin } from "../src/cli.ts";

let state: string;

beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "warren-up-"));
});

afterEach(async () => {
  await rm(state, { recursive: true, force: true });
});

const ports = ["--port", "0", "--scheduler-port", "0", "--metering-port", "0", "--gateway-admin-port", "0"];
const upArgs = (nodes: number, ...more: string[]) => [
  warrenBin,
  "up",
  "--json",
  "--state",
  state,
  "--nodes",
  `${nodes}`,
  ...ports,
  ...more,
];
const env = { PATH: process.env.PATH ?? "" };

/** Starts `up` and waits until it is up. */
async function up(nodes: number, ...more: string[]): Promise<Bun.Subprocess> {
  const child = Bun.spawn(upArgs(nodes, ...more), { stdout: "pipe", stderr: "ignore", env });
  const printed = await outputUntil("\n", child.stdout); // `up --json` prints where everything is once it is up
  expect(outputProblem(outputOf("up")!, JSON.parse(printed.split("\n")[0]!))).toBeUndefined();
  return child;
}

async function killed(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
}

async function ended(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
}

async function pidOf(name: string): Promise<number> {
  return ((await Bun.file(join(state, "run", `${name}.json`)).json()) as { pid: number }).pid;
}

test("rule 7: a second 'up' adopts the children of one that was killed; a third is refused and takes nothing away", async () => {
  const pids = () => Promise.all(["scheduler", "agent-n1", "gateway", "metering"].map(pidOf));
  const first = await up(1);
  const before = await pids();
  await killed(first);
  const second = await up(1);
  try {
    expect(await pids()).toEqual(before);
    const third = Bun.spawnSync(upArgs(1), { env });
    expect(third.exitCode).toBe(4);
    expect(third.stderr.toString()).toContain(`already runs on ${state} (pid ${second.pid})`);
    expect((await cli(["ps", "--state", state])).code).toBe(0);
  } finally {
    await ended(second);
  }
  for (const pid of before) {
    await waitUntil(() => startTimeOf(pid) === undefined, {
      deadlineMs: 5_000,
      what: `pid ${pid} to be gone`,
    });
  }
}, 90_000);

test("an 'up' with fewer nodes ends the agents that a killed one with more left behind", async () => {
  const first = await up(2);
  const pid = await pidOf("agent-n2");
  await killed(first);
  const second = await up(1);
  try {
    expect(startTimeOf(pid)).toBeUndefined();
  } finally {
    await ended(second);
  }
}, 90_000);

test("an 'up' with other flags replaces an agent that a killed one left, and its tenants go on", async () => {
  const instance = async () => {
    const { stdout } = await cli(["ps", "shop", "--json", "--state", state]);
    const { ref, pid, state: is } = JSON.parse(stdout) as Record<string, unknown> & { ref: { id: string } };
    return { id: ref.id, pid: pid as number, is };
  };
  const first = await up(1, "--memory", "1GiB");
  const agent = await pidOf("agent-n1");
  await cli(["deploy", await writeApp(state, "shop", "hello"), "--state", state]);
  expect((await cli(["ensure", "shop", "--state", state])).code).toBe(0);
  const before = await instance();
  await killed(first);
  const second = await up(1, "--memory", "2GiB");
  try {
    expect(await pidOf("agent-n1")).not.toBe(agent);
    expect(startTimeOf(agent)).toBeUndefined();
    expect(await instance()).toEqual(before);
    expect((await cli(["ensure", "shop", "--state", state, "--json"])).stdout).toContain('"cold":false');
  } finally {
    await ended(second);
  }
  expect(startTimeOf(before.pid)).toBeUndefined(); // an 'up' that is stopped still takes its tenants along
}, 90_000);

test("where tenants are not isolated 'up' says so, and why", async () => {
  // Nobody else can pass through the state directory, whoever runs this.
  const args = upArgs(2).filter((arg) => arg !== "--json");
  const child = Bun.spawn(args, { stdout: "pipe", stderr: "ignore", env });
  try {
    const said = await outputUntil("tenants are not isolated from each other: no isolation: ", child.stdout);
    expect(said).toContain("stop     Ctrl-C");
  } finally {
    await ended(child);
  }
}, 60_000);

test("SIGTERM at any moment of the start of an 'up' leaves nothing running", async () => {
  // The first one keeps its ports: what is started on a kept port is started in another way.
  for (const ms of [1_200, 300, 500, 700, 900, 1_100, 1_300, 1_600]) {
    const child = Bun.spawn(upArgs(2), { stdout: "ignore", stderr: "ignore", env });
    await pause(ms); // the moment is the input here, not a wait for something
    child.kill("SIGTERM");
    await child.exited;
    expect(processesOf(state)).toEqual([]);
  }
}, 120_000);

/** Processes with the directory in their arguments. */
function processesOf(directory: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        return line.includes(directory) ? [`${pid} ${line}`] : [];
      } catch {
        return []; // gone while we looked
      }
    });
}

/** What is printed up to and including that text, within 30 s. */
async function outputUntil(wanted: string, stdout: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stdout.getReader();
  let text = "";
  const deadline = AbortSignal.timeout(30_000);
  while (!text.includes(wanted)) {
    const next = await Promise.race([
      reader.read(),
      pause(30_000, deadline).then(() => ({ done: true, value: undefined }) as const),
    ]);
    if (next.done) throw new Error(`'warren up' ended or did not say ${JSON.stringify(wanted)}: ${text}`);
    text += new TextDecoder().decode(next.value);
  }
  reader.releaseLock();
  return text;
}
