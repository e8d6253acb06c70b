import { afterAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chownSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { pause, waitUntil } from "@warren/common/time";
import {
  ExitReason,
  ExitSchema,
  InstanceRefSchema,
  InstanceSchema,
  InstanceState,
} from "@warren/proto/common";
import { TranspilerCaches } from "../src/caches.ts";
import { prepareBun, tenantEnvironment } from "../src/command.ts";
import { EndedIds } from "../src/ended.ts";
import { Gate } from "../src/gate.ts";
import { applyLimits, CgroupV2 } from "../src/host/cgroup2.ts";
import { GroupDirectory } from "../src/host/cgroupfs.ts";
import { ExitWatcher } from "../src/host/exits.ts";
import { isAlive } from "../src/host/kernel.ts";
import { linuxKernel } from "../src/host/linux.ts";
import { listenersOf, ownerOf, parseSockets, procSockets } from "../src/host/listener.ts";
import { parseStat, readPss, readRss, readStat } from "../src/host/procfs.ts";
import { diagSockets, tcpStates } from "../src/host/sockdiag.ts";
import { isFree, Ports } from "../src/ports.ts";
import { ProcessTable } from "../src/processes.ts";
import { isExpected } from "../src/readiness.ts";
import { extend, noCounters, observe, toUsage } from "../src/usage.ts";
import { failure, silent } from "./support.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-agent-units-"));
afterAll(() => rmSync(directory, { recursive: true }));
const fresh = () => join(directory, ulid());

describe("/proc", () => {
  test("a name with spaces and brackets does not shift the fields", () => {
    const line = `42 (a) b (c) S 1 42 42 0 -1 4194304 8 0 1 0 5 6 7 8 20 0 3 0 248051 430080 32 1844`;
    expect(parseStat(line)).toEqual({
      pid: 42,
      comm: "a) b (c",
      state: "S",
      ppid: 1,
      pgrp: 42,
      session: 42,
      cpuTicks: 26,
      threads: 3,
      startTicks: 248051,
    });
    expect(parseStat("nonsense")).toBeUndefined();
  });

  test("a zombie is dead, but not while threads of it live", () => {
    const stat = readStat(process.pid)!;
    expect(isAlive(stat)).toBe(true);
    expect(isAlive({ ...stat, state: "Z", threads: 1 })).toBe(false);
    expect(isAlive({ ...stat, state: "Z", threads: 2 })).toBe(true);
  });

  test("memory of this very process is plausible", () => {
    const rss = readRss(process.pid)!;
    expect(rss).toBeGreaterThan(10 * 1024 * 1024);
    expect(readPss(process.pid)!).toBeLessThanOrEqual(rss * 1.1);
  });

  test("rule 5: one that was seen in the middle of its exec is asked again whose it is", () => {
    let answer: string | undefined;
    const stat = { ...readStat(process.pid)!, pid: 4_000_000, ppid: 1 };
    const kernel = { ...linuxKernel(), list: () => [stat], environ: () => answer, uid: () => 0 };
    const table = new ProcessTable(kernel);
    const members = () => table.snapshot().membersOf({ id: "x", seen: new Map() });
    expect(members()).toEqual([]);
    answer = "x";
    expect(members()).toEqual([stat]);
    answer = "forged later"; // belonging is inherited, and never changes
    expect(members()).toEqual([stat]);
  });

  test("listening sockets, and only those", () => {
    const text = [
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      "   0: 0100007F:5BA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11165 1 0 100",
      "   1: 0100007F:5BA0 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 11166 1 0 100",
    ].join("\n");
    expect(parseSockets(text, tcpStates.listen)).toEqual([
      { address: "127.0.0.1", port: 0x5ba0, inode: "11165" },
    ]);
  });

  test("netlink and /proc agree on who listens, on IPv4 and IPv6", () => {
    const four = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const six = Bun.listen({ hostname: "::", port: 0, socket: { data() {} } });
    const one = Bun.listen({ hostname: "::1", port: 0, socket: { data() {} } });
    for (const [{ port }, address] of [
      [four, "127.0.0.1"],
      [six, "::"],
      [one, "::1"],
    ] as const) {
      const [socket] = diagSockets(port, tcpStates.listen)!;
      expect(socket?.port).toBe(port);
      expect(procSockets(tcpStates.listen)).toContainEqual(socket!);
      expect(diagSockets(0, tcpStates.listen)).toContainEqual(socket!);
      expect(ownerOf(port, [process.pid])).toEqual({ kind: "instance" });
      expect(ownerOf(port, [1])).toMatchObject({ kind: "stranger" });
      expect(listenersOf([process.pid])).toContainEqual({ address, port });
    }
    four.stop(true);
    six.stop(true);
    one.stop(true);
    expect(diagSockets(four.port, tcpStates.listen)).toEqual([]);
    expect(ownerOf(four.port, [process.pid])).toEqual({ kind: "nobody" });
  });
});

describe("rule 8: counters", () => {
  const sample = { cpuUs: 0, rssBytes: 0, pids: 1 };
  const moment = (ms: number, wasFrozen = false) => ({ at: ms, wallMs: ms, wasFrozen });
  test("rule 8: CPU never goes back, and what vanished processes used stays counted", () => {
    let counters = noCounters(0);
    counters = observe(counters, { ...sample, cpuUs: 100 }, moment(1));
    counters = observe(counters, { ...sample, cpuUs: 40 }, moment(2));
    expect(counters.cpuUs).toBe(100);
    counters = observe(counters, { ...sample, cpuUs: 70 }, moment(3));
    expect(counters.cpuUs).toBe(130);
    expect(extend(counters, moment(4), 90).cpuUs).toBe(130);
    expect(extend(counters, moment(4), 200).cpuUs).toBe(200);
  });

  test("memory is integrated over time, and over the time in which no agent watched", () => {
    let counters = noCounters(0);
    counters = observe(counters, { ...sample, rssBytes: 300, pssBytes: 100 }, moment(0));
    counters = observe(counters, { ...sample, rssBytes: 300 }, moment(1000));
    expect(counters.byteSeconds).toBe(100);
    counters = extend(counters, moment(11_000));
    expect(counters.byteSeconds).toBe(1100);
    expect(toUsage(counters)).toMatchObject({ memoryByteSeconds: 1100n, wallMs: 11_000n, memoryBytes: 100n });
  });

  test("between two readings of PSS its growth is taken from RSS; a cgroup's figure goes before both", () => {
    let counters = noCounters(0);
    counters = observe(counters, { ...sample, rssBytes: 300, pssBytes: 100 }, moment(0));
    counters = observe(counters, { ...sample, rssBytes: 350 }, moment(1));
    expect(counters.memoryBytes).toBe(150);
    counters = observe(counters, { ...sample, rssBytes: 350, groupMemoryBytes: 77 }, moment(2));
    expect(counters.memoryBytes).toBe(77);
  });

  test("time in which it was frozen is counted apart, and in the whole", () => {
    let counters = extend(noCounters(0), moment(1000));
    counters = extend(counters, moment(4000, true));
    counters = extend(counters, moment(4500));
    expect(toUsage(counters)).toMatchObject({ wallMs: 4500n, frozenMs: 3000n });
  });
});

describe("ports", () => {
  // Below the ephemeral range and away from the default one, so that other tests' agents do not take part.
  const range = { from: 15_000, to: 15_009 };

  test("two agents with one range never hand out the same port", () => {
    using one = Ports.open({ from: 15_000, to: 15_600 });
    using two = Ports.open({ from: 15_000, to: 15_600 });
    const taken = new Set<number>();
    for (let i = 0; i < 200; i++) {
      taken.add(one.take(`a${i}`));
      taken.add(two.take(`b${i}`));
    }
    expect(taken.size).toBe(400);
  });

  test("no free block is said so; the block is free again when its agent is gone", () => {
    using _one = Ports.open(range);
    expect(() => Ports.open(range)).toThrow("no block of the tenant ports 15000-15009 is free");
    _one[Symbol.dispose]();
    using two = Ports.open(range);
    expect(two.take("x")).toBeGreaterThan(15_000);
  });

  test("a held port and one that a stranger listens on are not handed out; at last RESOURCE_EXHAUSTED", async () => {
    using ports = Ports.open(range, [], undefined, 0);
    const stranger = Bun.listen({ hostname: "127.0.0.1", port: 15_003, socket: { data() {} } });
    expect(isFree(15_003)).toBe(false);
    const taken = Array.from({ length: 8 }, (_, i) => ports.take(`${i}`));
    expect(taken.toSorted()).toEqual([15_001, 15_002, 15_004, 15_005, 15_006, 15_007, 15_008, 15_009]);
    expect((await failure((async () => ports.take("x"))())).message).toContain("no free tenant port");
    ports.release(15_002, "not the holder");
    expect((await failure((async () => ports.take("x"))())).message).toContain("no free tenant port");
    ports.release(15_002, "1");
    expect(ports.take("x")).toBe(15_002);
    stranger.stop(true);
  });

  test("a shared port is one for all instances of a tenant, and held until the last has released it", () => {
    using ports = Ports.open(range, [], undefined, 0);
    const port = ports.takeShared("app", "a");
    expect(ports.takeShared("app", "b")).toBe(port);
    expect(ports.takeShared("other", "c")).not.toBe(port);
    ports.release(port, "a");
    expect(ports.takeShared("app", "d")).toBe(port);
    ports.release(port, "b");
    ports.release(port, "x"); // a stranger's
    expect(ports.takeShared("app", "e")).toBe(port);
    ports.release(port, "d");
    ports.release(port, "e");
    ports.adopt(port, "f", "app");
    expect(ports.takeShared("app", "g")).toBe(port);
  });

  test("rule 6: what a dead agent's tenants may still go by is not handed out when its block is claimed", () => {
    using ports = Ports.open(range, [], () => [15_001, 15_002, -5, 99_999], 0);
    expect([ports.take("a"), ports.take("b")]).toEqual([15_003, 15_004]);
  });

  test("the blocks of all ports that were held before are claimed again", () => {
    const wide = { from: 15_000, to: 15_000 + 3 * 256 - 1 };
    using first = Ports.open(wide, [15_600, 15_100]);
    using second = Ports.open(wide);
    const theirs = second.take("x");
    expect(theirs).toBeGreaterThan(15_256);
    expect(theirs).toBeLessThan(15_512);
    expect(first.take("y")).not.toBe(theirs);
  });

  test("a port that somebody holds on IPv6 alone is not handed out", () => {
    using ports = Ports.open(range, [], undefined, 0);
    const six = Bun.listen({ hostname: "::1", port: 15_001, socket: { data() {} } });
    expect(ports.take("a")).not.toBe(15_001);
    six.stop(true);
  });

  test("a range that is none", () => {
    expect(() => Ports.open({ from: 5, to: 5 })).toThrow("are no range");
  });
});

describe("the gate of starts", () => {
  test("rule 9: lets so many in, in order, and not those who gave up", async () => {
    const gate = new Gate({ width: 2, holdMs: 60_000, perSecond: 1_000 });
    const never = new AbortController().signal;
    const leave = [await gate.enter(never), await gate.enter(never)];
    const order: number[] = [];
    const quitter = new AbortController();
    const enter = async (number: number) => {
      const go = await gate.enter(never);
      order.push(number);
      return go!;
    };
    const three = enter(3);
    const four = gate.enter(quitter.signal);
    const five = enter(5);
    expect(gate.waiting).toBe(3);
    quitter.abort();
    expect(await four).toBeUndefined();
    leave[0]!();
    leave[0]!(); // twice is once
    (await three)();
    (await five)();
    expect(order).toEqual([3, 5]);
    leave[1]!();
    expect(gate.waiting).toBe(0);
    expect(await gate.enter(never)).toBeFunction();
    expect(await gate.enter(never)).toBeFunction();
  });

  test("so many a second, after a burst of as many; first come, first served", async () => {
    let now = 0;
    const gate = new Gate({ width: 100, holdMs: 60_000, perSecond: 2 }, () => now);
    const never = new AbortController().signal;
    let inside = 0;
    const entered = Array.from({ length: 5 }, () => gate.enter(never).then(() => inside++));
    await Promise.all(entered.slice(0, 2));
    expect(inside).toBe(2);
    now += 400; // not yet a whole one
    await pause(1);
    expect(inside).toBe(2);
    now += 600;
    await waitUntil(() => inside === 4, { deadlineMs: 5_000, what: "two more" });
    now += 500;
    await Promise.all(entered);
  });

  test("rule 6: one that never leaves no longer counts after a while", async () => {
    const gate = new Gate({ width: 1, holdMs: 20, perSecond: 1_000 });
    const never = new AbortController().signal;
    await gate.enter(never);
    expect(await gate.enter(never)).toBeFunction();
  });
});

test("readiness: 0 means 200 to 399", () => {
  expect([199, 200, 302, 399, 400, 500].map((status) => isExpected(status, 0))).toEqual([
    false,
    true,
    true,
    true,
    false,
    false,
  ]);
  expect(isExpected(404, 404)).toBe(true);
  expect(isExpected(200, 404)).toBe(false);
});

describe("what tenants run on", () => {
  test("a compiled Warren is made Bun by a wrapper on the tenant's PATH", () => {
    const bin = fresh();
    const bun = prepareBun(bin, "/opt/wa'rren", true);
    expect(readFileSync(join(bin, "bun"), "utf8")).toContain(`BUN_BE_BUN=1 exec '/opt/wa'\\''rren' "$@"`);
    // Bun behaves as Node does by the name that it is called by.
    expect(readFileSync(join(bin, "node"), "utf8")).toContain(`BUN_BE_BUN=1 exec '${bin}/named/node' "$@"`);
    expect(readlinkSync(join(bin, "named", "node"))).toBe("/opt/wa'rren");
    const env = tenantEnvironment({
      env: {},
      port: 1,
      instance: "i",
      tenant: "t",
      node: "n",
      home: "/h",
      tmp: "/t",
      host: "127.0.0.1",
      sharesPort: true,
      cache: "/c",
      socket: "/s",
      heartbeatMs: 700,
      traceparent: undefined,
      bun,
    });
    expect(env.BUN_BE_BUN).toBe("1");
    expect(env).toMatchObject({ WARREN_SOCKET: "/s", WARREN_REUSE_PORT: "1", WARREN_HEARTBEAT_MS: "700" });
    expect(env).not.toHaveProperty("TRACEPARENT");
    expect(env.PATH).toStartWith(`${bin}:`);
  });
});

describe("cgroup v2 with its controllers", () => {
  // Not on this kind of machine: what is written is held against the kernel's documentation (cgroup-v2.rst).
  test("limits are written as the kernel reads them, and out of memory ends all of the group", () => {
    const path = fresh();
    mkdirSync(path);
    applyLimits(new GroupDirectory(path), { memoryBytes: 134_217_728, cpuMillis: 250, pids: 64 });
    const written = Object.fromEntries(
      readdirSync(path).map((file) => [file, readFileSync(join(path, file), "utf8")]),
    );
    expect(written).toEqual({
      "memory.max": "134217728",
      "memory.oom.group": "1",
      "cpu.max": "25000 100000",
      "pids.max": "64",
    });
  });

  test("what it counts is read: memory, kills for want of it, CPU", () => {
    const path = fresh();
    mkdirSync(path);
    const files = {
      "memory.current": "4096\n",
      "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 1\n",
      "cpu.stat": "usage_usec 1234567\nuser_usec 1\n",
      "cgroup.events": "populated 1\nfrozen 0\n",
      "cgroup.procs": "12\n345\n",
    };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text);
    const group = new CgroupV2(path);
    expect(group.memoryBytes()).toBe(4096);
    expect(group.oomKills()).toBe(1);
    expect(group.cpuUs()).toBe(1_234_567);
    expect(group.freezer.isFrozen()).toBe(false);
    expect(group.listPids()).toEqual([12, 345]);
    // A tenant may move into groups of its own.
    mkdirSync(join(path, "own", "deep"), { recursive: true });
    writeFileSync(join(path, "own", "deep", "cgroup.procs"), "678\n");
    const moved = fresh();
    cpSync(path, moved, { recursive: true });
    writeFileSync(join(moved, "cgroup.procs"), "");
    expect(new CgroupV2(moved).listPids()).toEqual([678]);
  });
});

describe("Bun's caches", () => {
  const log = silent;
  const uid = process.getuid!();
  const whose = (id: string, tenant = "app", release = "sha256:aa") => ({ id, tenant, release });

  test("one per tenant and release, kept for the next instance, its owner's alone", () => {
    const root = fresh();
    mkdirSync(root);
    const caches = new TranspilerCaches(root, log);
    const path = caches.hold(whose("1"), undefined)!;
    expect(caches.hold(whose("2"), undefined)).toBe(path); // the same uid
    expect(caches.hold(whose("3", "app", "sha256:bb"), undefined)).not.toBe(path);
    expect(caches.hold(whose("4", "other"), undefined)).not.toBe(path);
    expect(statSync(path)).toMatchObject({ uid });
    expect(statSync(path).mode & 0o777).toBe(0o700);
  });

  test.skipIf(uid !== 0)("rule 6: it belongs to one uid at a time, with what is in it (needs root)", () => {
    const root = fresh();
    mkdirSync(root);
    const caches = new TranspilerCaches(root, log);
    const alice = { uid: 2_000_000_001, gid: 2_000_000_001 };
    const next = { uid: 2_000_000_002, gid: 2_000_000_002 };
    const path = caches.hold(whose("1"), alice)!;
    writeFileSync(join(path, "a.pile"), "x");
    chownSync(join(path, "a.pile"), alice.uid, alice.gid);
    expect(caches.hold(whose("2"), next)).toBeUndefined();
    caches.release(whose("1"));
    expect(caches.hold(whose("2"), next)).toBe(path);
    for (const file of [path, join(path, "a.pile")]) expect(statSync(file)).toMatchObject({ uid: next.uid });
  });

  test.skipIf(uid !== 0)(
    "rule 6: nothing but its owner's plain files is given away (needs root)",
    async () => {
      const alice = { uid: 2_000_000_001, gid: 2_000_000_001 };
      for (const trick of ["symlink", "hardlink", "foreign", "directory"]) {
        const root = fresh();
        mkdirSync(root);
        const precious = join(root, "..", `precious-${ulid()}`);
        writeFileSync(precious, "root's");
        const caches = new TranspilerCaches(root, log);
        const path = caches.hold(whose("1"), alice)!;
        const planted = join(path, "p");
        if (trick === "symlink") symlinkSync(precious, planted);
        else if (trick === "hardlink") linkSync(precious, planted);
        else if (trick === "directory") mkdirSync(planted);
        else writeFileSync(planted, "");
        caches.release(whose("1"));
        expect([trick, caches.hold(whose("2"), { uid: 2_000_000_002, gid: 1 })]).toEqual([trick, undefined]);
        expect(statSync(precious)).toMatchObject({ uid: 0 });
        await waitUntil(() => !existsSync(path), { deadlineMs: 5_000 });
      }
    },
  );

  test("rule 9: one that has grown too large goes with its last instance, the oldest when there are too many", async () => {
    const root = fresh();
    mkdirSync(root);
    const caches = new TranspilerCaches(root, log, { count: 3, bytes: 10_000, files: 10 });
    const large = caches.hold(whose("1", "large"), undefined)!;
    writeFileSync(join(large, "x"), Buffer.alloc(100_000));
    caches.hold(whose("2", "large"), undefined);
    caches.release(whose("1", "large"));
    for (const tenant of ["a", "b", "c"]) {
      caches.hold(whose(tenant, tenant), undefined);
      if (tenant === "a") utimesSync(join(root, "a.aa"), 1, 1);
      if (tenant !== "c") caches.release(whose(tenant, tenant));
    }
    await waitUntil(() => !existsSync(join(root, "a.aa")), { deadlineMs: 5_000 });
    expect(readdirSync(root).toSorted()).toEqual(["b.aa", "c.aa", "large.aa"]);
    caches.release(whose("2", "large"));
    await waitUntil(() => !existsSync(large), { deadlineMs: 5_000 });
  });
});

describe("the exit watcher", () => {
  test("sees the end of a process at once, also one that is gone already, and no stranger's", async () => {
    using watcher = new ExitWatcher(linuxKernel());
    const child = Bun.spawn(["sleep", "7008"], { detached: true });
    const name = { pid: child.pid, startTicks: readStat(child.pid)!.startTicks };
    let ended = 0;
    watcher.watch(name, () => ended++);
    child.kill("SIGKILL");
    await waitUntil(() => ended === 1, { deadlineMs: 2_000 });
    watcher.watch(name, () => ended++);
    await waitUntil(() => ended === 2, { deadlineMs: 2_000 });
    watcher.watch({ pid: process.pid, startTicks: 1 }, () => ended++);
    await waitUntil(() => ended === 3, { deadlineMs: 2_000 });
  });
});

describe("ids that ended", () => {
  const exited = (id: string, reason: ExitReason) =>
    create(InstanceSchema, {
      ref: create(InstanceRefSchema, { id, tenant: "app", generation: 2n ** 60n, node: "n1" }),
      state: InstanceState.EXITED,
      exit: create(ExitSchema, { reason, lastOutput: ["last words"] }),
    });

  test("are remembered over restarts, and for ever in effect", () => {
    const path = fresh();
    const ids = Array.from(
      { length: 30 },
      (_, i) => `01ARZ3NDE${"ABCDEFGHJKMNPQRSTVWXYZ0123456789"[i]}TSV4RRFFQ69G5FAV`,
    );
    ids.sort();
    let ended = new EndedIds(path, silent, 10, 3);
    for (const id of ids) ended.add(exited(id, ExitReason.CRASHED));
    expect(ended.get(ids[29]!)?.exit?.lastOutput).toEqual(["last words"]);
    for (let round = 0; round < 2; round++) {
      expect(ended.get(ids[29]!)?.exit?.reason).toBe(ExitReason.CRASHED);
      expect(ended.get(ids[29]!)?.ref?.generation).toBe(2n ** 60n);
      expect(ended.get(ids[0]!)?.exit?.message).toContain("forgotten");
      expect(ended.get(ulid())).toBeUndefined();
      ended = new EndedIds(path, silent, 10, 3);
    }
    expect(readFileSync(path, "utf8").split("\n").length).toBeLessThan(25);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("half a line, from a full disk, is left out", () => {
    const path = fresh();
    const id = ulid();
    new EndedIds(path, silent).add(exited(id, ExitReason.KILLED));
    appendFileSync(path, '{"id":"01AR');
    expect(new EndedIds(path, silent).get(id)?.exit?.reason).toBe(ExitReason.KILLED);
  });
});
