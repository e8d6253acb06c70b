/** Who is told to end, at a stop. On every kind of host, and on every level of isolation where the test is root. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, cpSync } from "node:fs";
import { join } from "node:path";
import { ExitReason, type Instance, Isolation } from "@warren/proto/common";
import type { Stat } from "../src/host/kernel.ts";
import { recipients } from "../src/recipients.ts";
import { type FakeScheduler, fixtures, isAlive, pidsOf, type TestAgent, TestSite } from "./support.ts";

const { NONE, USER, CGROUP, NAMESPACE } = Isolation;
const isRoot = process.getuid?.() === 0;

describe("recipients", () => {
  const stat = (pid: number, ppid: number, comm: string, startTicks = pid): Stat => ({
    ...{ pid, ppid, comm, startTicks, state: "S", pgrp: 1, session: 1, cpuTicks: 0, threads: 1 },
  });
  const pids = (stats: readonly Stat[]) => stats.map(({ pid }) => pid);
  const main = { pid: 10, startTicks: 10 };

  test("the first process alone, while it lives; then those that it left", () => {
    const [app, child, grandchild] = [stat(10, 1, "bun"), stat(11, 10, "bun"), stat(12, 11, "sh")];
    expect(pids(recipients({ main }, [child, app, grandchild]))).toEqual([10]);
    expect(pids(recipients({ main }, [child, grandchild]))).toEqual([11, 12]);
    // Its pid is a stranger's by now, who is of the instance all the same.
    expect(pids(recipients({ main }, [stat(10, 1, "sh", 99)]))).toEqual([10]);
  });

  test("in a wrapper the eldest of its children, and never the wrapper", () => {
    const wrapper = "bwrap";
    const outer = [stat(10, 1, wrapper), stat(11, 10, wrapper)];
    const app = stat(13, 11, "bun", 20);
    const orphan = stat(12, 11, "sh", 30);
    const child = stat(14, 13, "bun", 25);
    expect(pids(recipients({ main, wrapper }, [...outer, orphan, child, app]))).toEqual([13]);
    expect(pids(recipients({ main, wrapper }, outer))).toEqual([]);
  });
});

function suite(
  at: () => { t: TestAgent; start: (file: string, env?: Record<string, string>) => Promise<Instance> },
) {
  /** What it wrote until its end, but for what Bun says of the script that it runs, and the agent of its end. */
  async function written(instance: Instance): Promise<string[]> {
    const { t } = at();
    const id = instance.ref!.id;
    const following = (async () => {
      const lines: string[] = [];
      for await (const batch of t.rpc.streamLogs({ instance: id, tail: 100, follow: true })) {
        lines.push(...batch.lines.map(({ text }) => text));
      }
      return lines.filter((line) => !line.startsWith("$ ") && !line.startsWith("[warren] "));
    })();
    const pids = pidsOf(id);
    const ended = await t.stop(id, ExitReason.KILLED, 10_000);
    expect(ended?.exit?.code).toBe(0);
    expect(pids.filter(isAlive)).toEqual([]);
    return following;
  }

  test("the app is sent one, and its child none: it is its parent's to end", async () => {
    const instance = await at().start("run/parent.ts");
    expect(await written(instance)).toEqual(["parent: SIGTERM 1", "parent: ends, its child with 7"]);
  });

  test("so is the app behind a start script that a shell reads", async () => {
    const instance = await at().start("");
    expect(await written(instance)).toEqual(["parent: SIGTERM 1", "parent: ends, its child with 7"]);
  });
}

describe.each(["auto", "none", "portable"] as const)("on the host kind %s", (hostKind) => {
  let site: TestSite;
  let t: TestAgent;
  beforeAll(async () => {
    site = await TestSite.open();
    t = await site.agent((await site.scheduler()).url, { hostKind });
  });
  afterAll(() => site[Symbol.asyncDispose]());

  suite(() => ({ t, start: (file, env) => startOf(t, fixtures, NONE, file, env) }));

  test("a child that the app leaves behind is told then, and has the rest of the grace", async () => {
    const instance = await startOf(t, fixtures, NONE, "run/parent.ts", { LEAVES_CHILD: "1" });
    // A grace longer than this test may take: were it only killed at the end of it, the test would time out.
    const ended = await t.stop(instance.ref!.id, ExitReason.KILLED, 120_000);
    expect(ended?.exit?.code).toBe(0);
  });
});

describe.skipIf(!isRoot).each([USER, CGROUP, NAMESPACE])(
  "on isolation level %i (needs root)",
  (isolation) => {
    let site: TestSite;
    let scheduler: FakeScheduler;
    let t: TestAgent;
    beforeAll(async () => {
      site = await TestSite.open();
      scheduler = await site.scheduler();
      chmodSync(site.directory, 0o755);
      cpSync(fixtures, site.path("apps"), { recursive: true });
      t = await site.agent(scheduler.url, { isolation: "auto" });
    });
    afterAll(() => site[Symbol.asyncDispose]());

    suite(() => ({ t, start: (file, env) => startOf(t, site.path("apps"), isolation, file, env) }));
  },
);

/** A fixture; "": the app that has a start script. */
function startOf(
  t: TestAgent,
  apps: string,
  isolation: Isolation,
  file: string,
  env = {},
): Promise<Instance> {
  const directory = file === "" ? join(apps, "run") : apps;
  const command = file === "" ? [] : ["bun", file];
  return t.start(file, { source: { case: "directory", value: directory }, command, isolation, env });
}
