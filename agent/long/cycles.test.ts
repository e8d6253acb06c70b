import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { InstanceState } from "@warren/proto/common";
import { type FakeScheduler, TestSite } from "../test/support.ts";

const cycles = 2_000;
/** Until caches, pools and bounded lists are full. */
const warmUp = 400;
const atOnce = 4;

let site: TestSite;
let scheduler: FakeScheduler;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
});

afterAll(() => site[Symbol.asyncDispose]());

test("rule 9: 2000 starts and stops grow no memory, file descriptors, ports, cgroups or directories", async () => {
  const options = site.options(scheduler.url, {
    startsPerSecond: 10_000,
    // Far fewer than starts: each port is used again and again.
    tenantPorts: { from: 16_000, to: 16_063 },
    logBounds: { keepPerTenant: 2, keepInAll: 20 },
  });
  const agent = await site.spawnAgent(options);
  const { t } = agent;
  const { pid } = agent.process;
  const entries = (...path: string[]) => readdirSync(join(options.runtimeDirectory, ...path)).length;
  /** After a whole collection; the least of several, since the allocator gives memory back by and by. */
  async function rssMiB(): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let look = 0; look < 10; look++) {
      agent.process.kill("SIGUSR2");
      await t.list(); // answered after the collection
      least = Math.min(least, Number(readFileSync(`/proc/${pid}/statm`, "latin1").split(" ")[1]) / 256);
    }
    return least;
  }

  async function run(count: number): Promise<void> {
    let left = count;
    const one = async () => {
      while (left-- > 0) {
        const instance = await t.start("hello.ts");
        if (instance.state !== InstanceState.READY) throw new Error(instance.exit?.message);
        const ended = await t.stop(instance.ref!.id);
        if (ended?.state !== InstanceState.EXITED) throw new Error("not gone");
      }
    };
    await Promise.all(Array.from({ length: atOnce }, one));
  }
  const look = () => ({
    fds: readdirSync(`/proc/${pid}/fd`).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
    instances: entries("instances"),
    homes: entries("homes"),
    sockets: entries("sock"),
    logs: entries("logs"),
    groups: groupsOf(pid),
  });

  /** An instance's files are removed after its stop was answered. */
  const tidy = () =>
    waitUntil(() => entries("homes") === 0, { deadlineMs: 10_000, what: "homes are removed" });

  await run(warmUp);
  await tidy();
  const before = look();
  const rssBefore = await rssMiB();
  await run(cycles - warmUp);
  await tidy();
  const after = look();
  const rssAfter = await rssMiB();
  console.log(JSON.stringify({ before, after, rssBefore, rssAfter }));
  // A connection or a timer more or less is no growth; one per cycle would be 1,600.
  expect(after.fds).toBeLessThanOrEqual(before.fds + 8);
  expect(after.threads).toBeLessThanOrEqual(before.threads + 4);
  expect(after).toMatchObject({ instances: 0, homes: 0, sockets: 0, groups: before.groups });
  expect(after.logs).toBeLessThanOrEqual(20);
  // 16 KiB kept per cycle would be 25 MiB; the allocator's own ups and downs are less.
  expect(rssAfter - rssBefore).toBeLessThan(24);
  agent.process.kill("SIGTERM");
  expect(await agent.process.exited).toBe(0);
}, 300_000);

/** Groups below the agent's own, of all hierarchies; 0 where there are none. */
function groupsOf(pid: number): number {
  const own = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "latin1"))?.[1] ?? "/";
  const mount = readFileSync("/proc/self/mounts", "latin1")
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, , type]) => type === "cgroup2")?.[1];
  if (!mount) return 0;
  const all = readdirSync(join(mount, own), { withFileTypes: true });
  const mine = all.filter((entry) => entry.isDirectory() && entry.name.startsWith("warren-n1-"));
  return mine.reduce((sum, { name }) => {
    const below = readdirSync(join(mount, own, name), { withFileTypes: true });
    return sum + below.filter((entry) => entry.isDirectory()).length;
  }, 0);
}
