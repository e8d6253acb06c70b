/** When the host has nothing left to give: no descriptor, no room on the disk, or processes and files without number. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { waitUntil } from "@warren/common/time";
import {
  ExitReason,
  InstanceRefSchema,
  InstanceSchema,
  Isolation,
  TransitionSchema,
} from "@warren/proto/common";
import { Ballast } from "../src/ballast.ts";
import { diskUse, overDiskLimit } from "../src/disk.ts";
import { EndedIds } from "../src/ended.ts";
import { Fence } from "../src/fence.ts";
import { ExitWatcher } from "../src/host/exits.ts";
import { noGroup } from "../src/host/group.ts";
import { HotFile } from "../src/host/hot-file.ts";
import type { Kernel } from "../src/host/kernel.ts";
import { linuxKernel } from "../src/host/linux.ts";
import { ownerOf, procSockets } from "../src/host/listener.ts";
import { countOpenFiles, findSockets } from "../src/host/procfs.ts";
import { tcpStates } from "../src/host/sockdiag.ts";
import { begin } from "../src/machine.ts";
import { type InstanceRecord, noLimits, RecordStore } from "../src/records.ts";
import { takeSample } from "../src/sample.ts";
import { Spool } from "../src/spool.ts";
import { noCounters } from "../src/usage.ts";
import { silent } from "./support.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-agent-starved-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const fresh = () => join(directory, ulid());
const freshDirectory = () => {
  const path = fresh();
  mkdirSync(path);
  return path;
};
/** What it throws, or undefined. */
const errorOf = (work: () => unknown): unknown => {
  try {
    work();
    return undefined;
  } catch (error) {
    return error;
  }
};

describe("no file descriptor left", () => {
  test("rule 5: what cannot be read is not taken for gone", async () => {
    const group = freshDirectory();
    writeFileSync(join(group, "cgroup.procs"), "1\n");
    using server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const script = join(import.meta.dir, "starved.ts");
    const child = Bun.spawn(
      ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh", process.execPath, script, group, String(server.port)],
      { stdout: "pipe", stderr: "inherit" },
    );
    const answers = (await new Response(child.stdout).json()) as Record<string, string>;
    expect(answers).toEqual({
      stat: "EMFILE",
      environ: "EMFILE",
      list: "EMFILE",
      ownerOf: "EMFILE",
      connectionsTo: "EMFILE",
      group: "EMFILE",
      children: "EMFILE",
      hot: "EMFILE",
    });
  });

  test("rule 5: what is gone, or not ours, is still undefined", () => {
    const kernel = linuxKernel();
    const none = 2 ** 22 + 1; // above the largest pid there can be
    expect([kernel.read(none), kernel.environ(none, "PATH"), kernel.rss(none), kernel.pss(none)]).toEqual(
      Array(4).fill(undefined),
    );
    expect([kernel.uid(none), kernel.openFiles(none)]).toEqual([undefined, undefined]);
    expect(new HotFile(fresh()).read()).toBeUndefined();
  });

  test("rule 5: the exit watcher takes a read that fails for not known, and asks again", async () => {
    const real = linuxKernel();
    let fails = true;
    let asked = 0;
    const kernel: Kernel = {
      ...real,
      read(pid) {
        asked++;
        if (fails) throw Object.assign(new Error("too many open files"), { code: "EMFILE" });
        return real.read(pid);
      },
    };
    using watcher = new ExitWatcher(kernel);
    const ended: string[] = [];
    const name = { pid: process.pid, startTicks: real.read(process.pid)!.startTicks };
    watcher.watch(name, () => ended.push("alive"));
    // Its pid is another's by now: the pidfd would never tell.
    watcher.watch({ pid: process.ppid, startTicks: 1 }, () => ended.push("stranger"));
    await waitUntil(() => asked >= 4, { deadlineMs: 10_000 });
    expect(ended).toEqual([]);
    fails = false;
    await waitUntil(() => ended.length > 0, { deadlineMs: 10_000 });
    expect(ended).toEqual(["stranger"]);
  });
});

describe("a disk that is full", () => {
  /** A directory stands where the file should go, so that it cannot be written. */
  const blocked = (path: string) => mkdirSync(`${path}.new`);
  const unblock = (path: string) => rmSync(`${path}.new`, { recursive: true });

  test("rule 6: an epoch that cannot be written holds, and is written as soon as it can be", () => {
    const path = fresh();
    const fence = new Fence(path, silent);
    fence.check(3n);
    blocked(path);
    fence.check(4n);
    fence.raise(4n);
    expect(fence.highest).toBe(4n);
    expect(errorOf(() => fence.check(3n))).toBeInstanceOf(Error);
    expect(readFileSync(path, "utf8")).toBe("3\n");
    unblock(path);
    fence.check(4n);
    expect(new Fence(path).highest).toBe(4n);
  });

  const record = (id: string): InstanceRecord => ({
    version: 1,
    ref: create(InstanceRefSchema, { id, tenant: "t", slot: 0, generation: 1n, release: "", node: "n1" }),
    state: begin(0).state,
    port: 0,
    sharesPort: false,
    rung: Isolation.NONE,
    limits: noLimits,
    group: "",
    graceMs: 1,
    readiness: { path: "", status: 0, timeoutMs: 1 },
    counters: noCounters(0),
  });

  test("rule 4: what was read of the records is kept though none can be written anew", () => {
    const path = fresh();
    const before = new RecordStore(path, silent);
    const [kept, half] = [ulid(), ulid()];
    before.save(record(kept));
    before.save(record(half));
    writeFileSync(join(path, `${half}.2.json`), '{"version":'); // the disk was full
    let isFull = true;
    const ballast = new Ballast(fresh());
    ballast.guard = (write) => {
      if (isFull) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
      return write();
    };
    const store = new RecordStore(path, silent, ballast);
    const found = store.load();
    expect(found.broken).toEqual([]);
    expect(found.records.map(({ ref }) => ref.id).toSorted()).toEqual([kept, half].toSorted());
    expect(readdirSync(path).length).toBe(3);
    isFull = false;
    store.save(record(half));
    expect(readdirSync(path).toSorted()).toEqual([`${kept}.1.json`, `${half}.3.json`].toSorted());
    store.remove(kept);
    store.remove(half);
    expect(readdirSync(path)).toEqual([]);
  });

  test("rule 8: the spool and the ids that ended go on with what they read", () => {
    const [spooled, endings] = [fresh(), fresh()];
    const id = ulid();
    const value = create(TransitionSchema, { instance: { id } });
    new Spool(spooled, silent).append({ case: "transition", value }, 0);
    new EndedIds(endings, silent).add(
      create(InstanceSchema, { ref: { id }, exit: { reason: ExitReason.CRASHED } }),
    );
    blocked(spooled);
    blocked(endings);
    const spool = new Spool(spooled, silent);
    expect(spool.size).toBe(1);
    expect(spool.isFull(0)).toBe(true);
    const ended = new EndedIds(endings, silent);
    expect(ended.has(id)).toBe(true);
    unblock(spooled);
    unblock(endings);
    expect(spool.isFull(0)).toBe(false);
    const other = ulid();
    ended.add(create(InstanceSchema, { ref: { id: other } }));
    expect(new EndedIds(endings, silent).isRecent(other)).toBe(true);
  });

  test.skipIf(process.getuid?.() !== 0)("the ballast gives the room that a record needs", () => {
    const mount = freshDirectory();
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount]).exitCode).toBe(0);
    try {
      const ballast = new Ballast(join(mount, "ballast"), 128 * 1024);
      expect(ballast.hold()).toBe(true);
      const full = errorOf(() => writeFileSync(join(mount, "tenant"), Buffer.alloc(1024 ** 2)));
      expect(full).toMatchObject({ code: "ENOSPC" });
      const id = ulid();
      const bare = new RecordStore(join(mount, "records"), silent);
      expect(errorOf(() => bare.save(record(id)))).toMatchObject({ code: "ENOSPC" });
      expect(readdirSync(join(mount, "records"))).toEqual([]);
      new RecordStore(join(mount, "records"), silent, ballast).save(record(id));
      expect(ballast.isHeld).toBe(false);
      expect(ballast.hold()).toBe(false); // there is no room to take yet
      rmSync(join(mount, "tenant"));
      expect(ballast.hold()).toBe(true);
    } finally {
      Bun.spawnSync(["umount", mount]);
    }
  });
});

describe("processes without number", () => {
  test("no pid is cut where a file of the kernel's is long", () => {
    const path = fresh();
    const pids = Array.from({ length: 12_000 }, (_, i) => `${15_000 + i}\n`).join("");
    writeFileSync(path, pids);
    const file = new HotFile(path);
    expect(file.read()).toBe(pids);
    const line = "1234567\n";
    writeFileSync(path, line.repeat(600_000).replace(/^1/, "")); // no multiple of the line any more
    const text = file.read()!;
    expect(text.endsWith(`\n${line}`)).toBe(true);
    expect(text.length).toBeGreaterThan(4 * 1024 ** 2 - line.length);
    file.close();
  });

  test("of 500 processes PSS is read of a few, and the sum comes near; what one owns is exact", () => {
    const read: number[] = [];
    const mib = 1024 ** 2;
    const kernel = {
      ...linuxKernel(),
      pss: (pid: number) => read.push(pid) && (pid === 1 ? 900 * mib : 2 * mib),
      openFiles: () => 3,
    };
    const members = Array.from({ length: 500 }, (_, i) => ({
      pid: i + 1,
      rssBytes: i === 0 ? 1024 * mib : (20 + (i % 10)) * mib,
    }));
    const sample = takeSample(kernel, members, noGroup, true);
    expect(read.length).toBeLessThanOrEqual(32);
    expect(sample.pssBytes! / mib).toBeGreaterThan(900 + 499 * 1.8);
    expect(sample.pssBytes! / mib).toBeLessThan(900 + 499 * 2.2);
    expect(sample.openFiles).toBe(1500);
  });

  test("of 10,000 processes the resident set is read of a part", () => {
    let reads = 0;
    const kernel = { ...linuxKernel(), rss: () => ++reads && 1000 };
    const members = Array.from({ length: 10_000 }, (_, i) => ({ pid: i + 1 }));
    const sample = takeSample(kernel, members, noGroup, false);
    expect(reads).toBeLessThanOrEqual(1_024);
    expect(sample).toMatchObject({ rssBytes: 10_000_000, pids: 10_000, openFiles: undefined });
  });

  test("open files are told, and a host that cannot tell them tells none", () => {
    const before = countOpenFiles(process.pid)!;
    const servers = Array.from({ length: 5 }, () =>
      Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }),
    );
    expect(countOpenFiles(process.pid)).toBe(before + 5);
    for (const server of servers) server.stop(true);
    const kernel = { ...linuxKernel(), openFiles: () => undefined };
    expect(takeSample(kernel, [{ pid: process.pid }], noGroup, true).openFiles).toBeUndefined();
  });

  test("sockets are looked for among a bounded number of descriptors, and no further than needed", async () => {
    using server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    expect(ownerOf(server.port, [process.pid])).toEqual({ kind: "instance" });
    const wanted = new Set(
      procSockets(tcpStates.listen).flatMap((s) => (s.port === server.port ? [s.inode] : [])),
    );
    expect(wanted.size).toBe(1);
    const open = countOpenFiles(process.pid)!;
    expect([...findSockets([process.pid], wanted, open + 10).values()]).toEqual([process.pid]);
    // One that has more open than may be read is a stranger, and does not keep the next from being looked at.
    const child = Bun.spawn(["sleep", "7013"], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
    expect(findSockets([process.pid, child.pid], wanted, open - 1).size).toBe(0);
    expect(findSockets([child.pid, process.pid], wanted, open + 10).size).toBe(1);
    child.kill("SIGKILL");
    await child.exited;
  });
});

describe("files that hide", () => {
  const perl = (script: string, ...args: string[]) => {
    const { exitCode, stderr } = Bun.spawnSync(["perl", "-e", script, ...args]);
    if (exitCode !== 0) throw new Error(String(stderr));
  };
  const megabyte = 1_000_000;

  test("a name that is not UTF-8 counts", async () => {
    const root = freshDirectory();
    perl(
      'chdir $ARGV[0]; for my $n ("\\xff\\xfe", "\\x80\\x9f") { mkdir "d$n"; for my $f ($n, "d$n/$n") {' +
        ' open F, ">", $f or die $!; print F "x" x 1_000_000; close F } }',
      root,
    );
    const use = await diskUse(root);
    expect(use.entries).toBe(6);
    expect(use.isMore).toBe(false);
    expect(use.bytes).toBeGreaterThanOrEqual(4 * megabyte);
  });

  test("what lies too deep for a path is told as more than could be looked at", async () => {
    const root = freshDirectory();
    perl('chdir $ARGV[0]; for (1..600) { mkdir "dddddddd" or die $!; chdir "dddddddd" or die $! }', root);
    const use = await diskUse(root);
    expect(use.isMore).toBe(true);
    expect(overDiskLimit([use], 1e12)).toContain("so deep");
    Bun.spawnSync(["rm", "-rf", root]);
    expect(existsSync(root)).toBe(false);
  });

  test("a directory that is gone holds nothing", async () => {
    expect(await diskUse(fresh())).toEqual({ bytes: 0, entries: 0, isMore: false });
  });

  test.skipIf(process.getuid?.() === 0)(
    "a directory that is closed to us may hold more (needs another user than root)",
    async () => {
      const root = freshDirectory();
      chmodSync(root, 0);
      expect((await diskUse(root)).isMore).toBe(true);
      chmodSync(root, 0o700);
    },
  );

  test("a directory that is itself too large is not listed", async () => {
    const root = freshDirectory();
    perl(
      'mkdir "$ARGV[0]/d"; chdir "$ARGV[0]/d"; open F, ">", "f"; for (1..40_000) { link "f", "f" x 250 . $_ or die $! }',
      root,
    );
    // On tmpfs it is 20 bytes an entry.
    const isLarge = statSync(join(root, "d")).size > 8 * 1024 ** 2;
    expect(await diskUse(root, 50_000)).toMatchObject({ entries: isLarge ? 1 : 40_002, isMore: isLarge });
    Bun.spawnSync(["rm", "-rf", root]);
  });
});
