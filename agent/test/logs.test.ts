import { afterAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import { isQuick } from "@warren/common/testing/quick";
import { seeded } from "@warren/common/testing/seeded";
import { type Clock, waitUntil } from "@warren/common/time";
import { lineBytes } from "../src/logs/bounds.ts";
import { copyNumbers, copyPath } from "../src/logs/files.ts";
import { encodeLines, encodeMark, type Line, noMark, parseLine, parseMark } from "../src/logs/line.ts";
import { isStarved, nextLookMs, plan } from "../src/logs/rate.ts";
import { LineSplitter } from "../src/logs/splitter.ts";
import { Stirrings } from "../src/logs/stirrings.ts";
import { defaultLogBounds, type InstanceLogs, type LogBounds, LogStore } from "../src/logs.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-agent-logs-"));
afterAll(() => rmSync(directory, { recursive: true }));
const fresh = () => join(directory, ulid());
const deadlineMs = 10_000;
const fixtures = join(import.meta.dir, "fixtures");
const silent = createLogger({ process: "test", level: "silent" });
const MiB = 1024 * 1024;

class TestClock implements Clock {
  ms = 1_763_724_000_000;
  now = () => this.ms;
  monotonic = () => this.ms;
}

/** One instance's logs; nothing looks at them but the test. */
function alone(
  bounds: Partial<LogBounds> = {},
  more: { clock?: Clock; canPunch?: boolean; path?: string } = {},
) {
  const store = new LogStore(
    more.path ?? fresh(),
    { ...defaultLogBounds, ...bounds },
    more.clock ?? new TestClock(),
    more.canPunch,
  );
  const logs = store.open("app", ulid());
  const say = (text: string, stream: "stdout" | "stderr" = "stdout") =>
    appendFileSync(logs.path(stream), text);
  return { store, logs, say };
}

const idOf = (logs: InstanceLogs) => logs.directory.split(".").at(-1)!;

/** Everything that may be taken in. */
function takeIn(logs: InstanceLogs): void {
  while (logs.step() === "more");
}

async function tail(logs: InstanceLogs, count = 10_000): Promise<Line[]> {
  const all: Line[] = [];
  const options = { tail: count, follow: false, ended: () => false };
  for await (const lines of logs.read(options, Date.now, new AbortController().signal)) all.push(...lines);
  return all;
}

const texts = async (logs: InstanceLogs, count?: number) =>
  (await tail(logs, count)).map((line) => line.text);
const numbered = (from: number, to: number, what = "line") =>
  Array.from({ length: to - from }, (_, i) => `${what} ${from + i}`);
const asText = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");

/** Follows in the background; `stop` ends the instance and waits for the reader. */
function follow(logs: InstanceLogs, tailCount = 0) {
  const got: string[] = [];
  let ended = false;
  const reading = (async () => {
    const options = { tail: tailCount, follow: true, ended: () => ended };
    for await (const lines of logs.read(options, Date.now, new AbortController().signal)) {
      got.push(...lines.map((line) => line.text));
    }
  })();
  return {
    got,
    end: () => {
      ended = true;
      return reading;
    },
  };
}

/** A process whose output goes to the raw files, while a store's own loop takes it in. */
async function running(file: string, args: string[], bounds: Partial<LogBounds> = {}) {
  const store = new LogStore(fresh(), { ...defaultLogBounds, ...bounds });
  const id = ulid();
  const logs = store.open("app", id);
  const stop = new AbortController();
  const pumping = store.run(stop.signal, silent);
  const fds = (["stdout", "stderr"] as const).map((stream) => openSync(logs.path(stream), "a"));
  const child = Bun.spawn([process.execPath, join(fixtures, file), ...args], {
    stdin: "ignore",
    stdout: fds[0]!,
    stderr: fds[1]!,
  });
  for (const fd of fds) closeSync(fd);
  return {
    store,
    logs,
    child,
    /** After the instance's end: until all is in the copy. */
    end: async () => {
      store.ended("app", id);
      await waitUntil(() => logs.isOver, { deadlineMs, what: "the raw files are taken in" });
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
      stop.abort();
      await pumping;
    },
  };
}

describe("rule 9: bytes become lines", () => {
  test("one that is too long is cut as soon as it is, and the next one is whole", () => {
    const splitter = new LineSplitter();
    const push = (text: string) =>
      splitter.push(Buffer.from(text)).map(({ bytes, cut }) => [Buffer.from(bytes).toString(), cut]);
    expect(push("a\nb")).toEqual([["a", false]]);
    expect(push("c\n\n")).toEqual([
      ["bc", false],
      ["", false],
    ]);
    expect(push("x".repeat(lineBytes))).toEqual([]);
    expect(push("yz")).toEqual([["x".repeat(lineBytes), true]]);
    expect(push("more\nnext\n")).toEqual([["next", false]]);
    expect(push(`${"x".repeat(lineBytes)}\n`)).toEqual([["x".repeat(lineBytes), false]]);
    expect(push("half")).toEqual([]);
    expect(splitter.rest().map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(["half"]);
  });

  test("after a gap a line begins at the next newline, and what was left out is counted", () => {
    const splitter = new LineSplitter();
    splitter.push(Buffer.from("begun"));
    expect(splitter.interrupt()).toEqual([{ bytes: Buffer.from("begun"), cut: true }]);
    expect(splitter.push(Buffer.from("torn\nwhole\n")).map(({ bytes }) => String(bytes))).toEqual(["whole"]);
    expect(splitter.takeGap()).toBe(5);
    expect(splitter.takeGap()).toBe(0);
  });

  test("lines and marks are read as they were written, and nothing else is", () => {
    const written = [
      { bytes: Buffer.from("= 1 2 3 é\r"), cut: false },
      { bytes: Buffer.from(""), cut: true },
    ];
    const [first, second, end] = encodeLines("stderr", 1_763_724_000_123, written).toString().split("\n");
    expect(end).toBe("");
    expect(parseLine(Buffer.from(first!))).toEqual({
      stream: "stderr",
      at: 1_763_724_000_123,
      text: "= 1 2 3 é",
      cut: false,
    });
    expect(parseLine(Buffer.from(second!))).toMatchObject({ text: "", cut: true });
    const mark = {
      lines: 7,
      stdout: { offset: 2 ** 50, skip: "gap", dropped: { rate: 3, host: 4 } },
      stderr: noMark.stderr,
    } as const;
    const encoded = Buffer.from(encodeMark(mark)).subarray(0, -1);
    expect(parseMark(encoded)).toEqual(mark);
    expect(parseLine(encoded)).toBeUndefined();
    for (const broken of ["= 1 2", "", "= a 0 0 0 0 0 0 0 0", "1763724000123 x no"]) {
      expect(parseMark(Buffer.from(broken))).toBeUndefined();
      expect(parseLine(Buffer.from(broken))).toBeUndefined();
    }
  });
});

describe("rule 9: how much is taken in, and when", () => {
  const bounds = { ...defaultLogBounds, rawBytes: 1_000_000, bytesPerSecond: 100, burstBytes: 1_000 };
  const usual = { unread: 0, allowance: 1_000, starved: false, last: false };

  test("what is unread is read in pieces; of too much the oldest is skipped; a starved one keeps its end", () => {
    expect(plan({ ...usual, unread: 10 }, bounds)).toEqual({ skip: 0, read: 10 });
    expect(plan({ ...usual, unread: 900_000 }, bounds)).toEqual({ skip: 0, read: 32_768 });
    expect(plan({ ...usual, unread: 2 ** 40 }, bounds)).toEqual({ skip: 2 ** 40 - 65_536, read: 32_768 });
    expect(plan({ ...usual, unread: 2 ** 40, allowance: 1e9 }, bounds).skip).toBe(2 ** 40 - 1_000_000);
    expect(plan({ ...usual, unread: 100_000, starved: true }, bounds)).toEqual({ skip: 34_464, read: 0 });
    expect(plan({ ...usual, unread: 10, starved: true }, bounds)).toEqual({ skip: 0, read: 0 });
    expect(plan({ ...usual, unread: 10, starved: true, last: true }, bounds)).toEqual({ skip: 0, read: 10 });
  });

  test("one that was starved waits for a second's worth", () => {
    expect(isStarved(false, 1, bounds)).toBe(false);
    expect(isStarved(false, 0, bounds)).toBe(true);
    expect(isStarved(true, 99, bounds)).toBe(true);
    expect(isStarved(true, 100, bounds)).toBe(false);
  });

  test("a flood is looked at at once, a quiet one rarely, most rarely when the kernel watches it", () => {
    const waits = (["more", "much", "some", "nothing"] as const).map((found) => nextLookMs(found, 0, false));
    expect(waits).toEqual([0, 10, 100, 100]);
    expect([nextLookMs("nothing", 5_000, false), nextLookMs("nothing", 5_000, true)]).toEqual([250, 5_000]);
  });

  test.skipIf(process.platform !== "linux")("the kernel tells once which watched file was written to", () => {
    using stirrings = Stirrings.open()!;
    const [one, other] = [fresh(), fresh()];
    for (const path of [one, other]) appendFileSync(path, "");
    const id = stirrings.watch(one);
    stirrings.watch(other);
    expect(stirrings.poll()).toEqual([]);
    appendFileSync(one, "a");
    appendFileSync(one, "b");
    expect(new Set(stirrings.poll())).toEqual(new Set([id!]));
    appendFileSync(one, "c");
    expect(stirrings.poll()).toEqual([]);
    expect(stirrings.watch(fresh())).toBeUndefined();
  });

  test.skipIf(process.platform !== "linux")(
    "a quiet one is heard at once, without being looked at",
    async () => {
      let asked = 0;
      const clock = new TestClock();
      clock.monotonic = () => {
        asked++;
        return clock.ms;
      };
      const { store, logs, say } = alone({}, { clock });
      say("early\n");
      const stop = new AbortController();
      const pumping = store.run(stop.signal, silent);
      for (let i = 0; i < 5; i++) {
        clock.ms += 1_000;
        const before = asked;
        await waitUntil(() => asked > before + 6, { deadlineMs });
      }
      // From now on its time never comes: only the kernel can tell.
      say("late\n");
      await waitUntil(() => store.stats().writtenLines === 2, { deadlineMs });
      stop.abort();
      await pumping;
      expect(logs.lastOutput()).toEqual(["early", "late"]);
    },
  );
});

describe("a tail", () => {
  test("has fewer lines than asked for, as many, or the last ones", async () => {
    const { logs, say } = alone();
    expect(await texts(logs)).toEqual([]);
    say(asText(numbered(0, 500)));
    for (const count of [0, 1, 499, 500, 501]) {
      expect(await texts(logs, count)).toEqual(numbered(Math.max(0, 500 - count), 500));
    }
  });

  test("has both streams in the order of reading, with their time", async () => {
    const clock = new TestClock();
    const { logs, say } = alone({}, { clock });
    say("one\n");
    takeIn(logs);
    clock.ms += 1_000;
    say("two\r\n", "stderr");
    takeIn(logs);
    say("three\n");
    const at = clock.ms;
    expect(await tail(logs)).toEqual([
      { stream: "stdout", at: at - 1_000, text: "one", cut: false },
      { stream: "stderr", at, text: "two", cut: false },
      { stream: "stdout", at, text: "three", cut: false },
    ]);
  });

  test("goes over rotated files, of which a bounded number is kept", async () => {
    const { logs, say } = alone({ fileBytes: 4_000, files: 3 });
    for (const line of numbered(0, 1_000)) {
      say(`${line}\n`);
      logs.step();
    }
    const numbers = copyNumbers(logs.directory);
    expect(numbers).toHaveLength(3);
    expect(numbers[0]).toBeGreaterThan(10);
    for (const number of numbers)
      expect(statSync(copyPath(logs.directory, number)).size).toBeLessThanOrEqual(4_000);
    expect(await texts(logs, 100)).toEqual(numbered(900, 1_000));
    const all = await texts(logs);
    expect(all.length).toBeGreaterThan(100);
    expect(all).toEqual(numbered(1_000 - all.length, 1_000));
  });

  test("passes over a line that was half written when the agent died", async () => {
    const path = fresh();
    const { logs, say, store } = alone({}, { path });
    say(asText(numbered(0, 10)));
    takeIn(logs);
    appendFileSync(copyPath(logs.directory, 1), "1763724000123 o half a li");
    expect(await texts(logs)).toEqual(numbered(0, 10));
    expect(await texts(logs, 3)).toEqual(numbered(7, 10));
    // It has ended, and an agent that knows it only as such reads it as it is.
    rmSync(logs.path("stdout"));
    logs.close();
    const again = new LogStore(path, store.bounds).find(idOf(logs));
    expect(await texts(again!, 3)).toEqual(numbered(7, 10));
  });

  test("is handed out in bounded batches", async () => {
    const { logs, say } = alone();
    say("\n".repeat(5_000));
    const options = { tail: 4_000, follow: false, ended: () => false };
    let count = 0;
    for await (const lines of logs.read(options, Date.now, new AbortController().signal)) {
      expect(lines.length).toBeLessThanOrEqual(256);
      count += lines.length;
    }
    expect(count).toBe(4_000);
  });
});

describe("following", () => {
  test("goes on over rotations and ends with the instance, whose last line needs no newline", async () => {
    const { store, logs, say } = alone({ fileBytes: 2_000, files: 4 });
    const id = idOf(logs);
    say("past 0\npast 1\n");
    const reader = follow(logs, 1);
    await waitUntil(() => reader.got.includes("past 1"), { deadlineMs });
    for (let i = 0; i < 400; i += 20) {
      say(asText(numbered(i, i + 20)));
      await waitUntil(() => reader.got.includes(`line ${i + 19}`), { deadlineMs });
    }
    expect(copyNumbers(logs.directory)[0]).toBeGreaterThan(1);
    say("no newline");
    store.ended("app", id);
    await reader.end();
    expect(reader.got).toEqual(["past 1", ...numbered(0, 400), "no newline"]);
    expect(existsSync(logs.path("stdout"))).toBe(false);
  });

  test("begins before there is any output", async () => {
    const { store, logs, say } = alone();
    const reader = follow(logs, 10);
    await Promise.resolve();
    say("first\n");
    await waitUntil(() => reader.got.includes("first"), { deadlineMs });
    store.ended("app", idOf(logs));
    await reader.end();
    expect(reader.got).toEqual(["first"]);
  });

  test("a reader that is too slow is told how many lines it missed, and holds up nobody", async () => {
    const { logs, say } = alone({ fileBytes: 10_000, files: 2, bytesPerSecond: 1e9, burstBytes: 1e9 });
    say(asText(numbered(0, 100)));
    const stop = new AbortController();
    const slow = logs.read({ tail: 100, follow: true, ended: () => false }, Date.now, stop.signal);
    const got = (await slow.next()).value!.map((line) => line.text);
    // It does not ask for more while the rest is written and rotated away.
    for (let i = 100; i < 5_000; i += 100) {
      say(asText(numbered(i, i + 100)));
      takeIn(logs);
    }
    while (got.at(-1) !== "line 4999") got.push(...(await slow.next()).value!.map((line) => line.text));
    stop.abort();
    await slow.return();
    const notes = got.filter((text) => text.startsWith("[warren]"));
    expect(notes).toHaveLength(1);
    const missed = Number(/^\[warren\] (\d+) lines were rotated away/.exec(notes[0]!)?.[1]);
    const before = got.indexOf(notes[0]!);
    expect(got.slice(0, before)).toEqual(numbered(0, before));
    expect(got.slice(before + 1)).toEqual(numbered(before + missed, 5_000));
    expect(missed).toBeGreaterThan(1_000);
  });
});

describe("rule 9: more than the bounds", () => {
  const said = (text: string) =>
    Number(/^\[warren\] (\d+) bytes of stdout were dropped here: more than/.exec(text)?.[1]);

  test("what is over the rate is dropped at whole lines, said and counted to the byte", async () => {
    const clock = new TestClock();
    const bounds = { bytesPerSecond: 100_000, burstBytes: 200_000, rawBytes: 10 * MiB };
    const { store, logs, say } = alone(bounds, { clock });
    say(asText(numbered(0, 100_000)));
    const written = asText(numbered(0, 100_000)).length;
    takeIn(logs);
    clock.ms += 2_000;
    takeIn(logs);
    const lines = await texts(logs, 100_000);
    const notes = lines.filter((line) => line.startsWith("[warren]"));
    expect(notes).toHaveLength(1);
    // A line that had begun before the gap is kept as far as it came.
    const kept = lines.filter((line) => !notes.includes(line));
    const keptBytes = asText(kept).length;
    const cut = (await tail(logs, 100_000)).filter((line) => line.cut).length;
    expect(cut).toBeLessThanOrEqual(1);
    expect(said(notes[0]!) + keptBytes - cut).toBe(written);
    expect(store.stats()).toMatchObject({ droppedBytes: said(notes[0]!), writtenLines: lines.length });
    expect(lines.at(-1)).toBe("line 99999");
    expect(kept.slice(0, 1_000)).toEqual(numbered(0, 1_000));
    expect(lines[lines.indexOf(notes[0]!) + 1]).toMatch(/^line \d{5}$/);
    // Within the rate nothing more is dropped.
    clock.ms += 1_000;
    say("fine\n");
    expect((await texts(logs, 2)).at(-1)).toBe("fine");
    expect(store.stats().droppedBytes).toBe(said(notes[0]!));
  });

  test("the end of a flood is kept, since it tells why", async () => {
    const { store, logs, say } = alone({ bytesPerSecond: 1_000, burstBytes: 10_000 });
    for (let i = 0; i < 20; i++) {
      say(asText(numbered(i * 10_000, (i + 1) * 10_000)));
      takeIn(logs);
    }
    say("Error: why\n", "stderr");
    expect(logs.lastOutput().slice(-2)).toEqual(["line 199999", "Error: why"]);
    store.ended("app", idOf(logs));
    takeIn(logs);
    expect(logs.isOver).toBe(true);
    expect(await texts(logs)).toContain("line 199999");
    expect(await texts(logs)).toContain("Error: why");
    const stat = statSync(copyPath(logs.directory, copyNumbers(logs.directory)[0]!));
    expect(stat.size).toBeLessThan(500_000);
  });

  test("short lines are counted with what it costs to keep them", () => {
    const { store, logs, say } = alone({ bytesPerSecond: 1, burstBytes: MiB });
    say("\n".repeat(4 * MiB));
    takeIn(logs);
    expect(store.stats().writtenLines).toBeLessThan(200_000);
  });

  test("raw files are given back to the disk while their size rises", async () => {
    const { logs, say } = alone({ bytesPerSecond: 1e9, burstBytes: 1e9 });
    for (let i = 0; i < 64; i++) {
      say(`${"z".repeat(1_023)}\n`.repeat(1_024));
      takeIn(logs);
    }
    const { size, blocks } = statSync(logs.path("stdout"));
    expect(size).toBe(64 * MiB);
    expect(blocks * 512).toBeLessThan(MiB);
    expect((await tail(logs, 3)).map(({ text }) => text.length)).toEqual([1_023, 1_023, 1_023]);
  });

  test("where that cannot be done they are cut at their bound, and reading goes on", async () => {
    const bounds = { rawBytes: 100_000, bytesPerSecond: 1e9, burstBytes: 1e9 };
    const { store, logs, say } = alone(bounds, { canPunch: false });
    let largest = 0;
    for (let i = 0; i < 1_000; i++) {
      say(asText(numbered(i * 100, (i + 1) * 100)));
      takeIn(logs);
      largest = Math.max(largest, statSync(logs.path("stdout")).size);
    }
    expect(largest).toBeLessThan(2 * bounds.rawBytes);
    expect(store.stats().droppedBytes).toBe(0);
    expect(await texts(logs, 10_000)).toEqual(numbered(90_000, 100_000));
  });

  test("a copy that cannot be written drops, counts, and says so when it can be again", async () => {
    const { store, logs, say } = alone();
    say("before\n");
    takeIn(logs);
    const path = copyPath(logs.directory, 1);
    const kept = readFileSync(path);
    rmSync(path);
    symlinkSync("/dev/full", path); // each write fails with ENOSPC
    rmSync(copyPath(logs.directory, 2), { force: true });
    symlinkSync("/dev/full", copyPath(logs.directory, 2));
    say("lost\n");
    takeIn(logs);
    say("lost too\n", "stderr");
    takeIn(logs);
    expect(store.stats().droppedBytes).toBe("lost\n".length + "lost too\n".length);
    rmSync(path);
    appendFileSync(path, kept);
    rmSync(copyPath(logs.directory, 2), { force: true });
    say("after\n");
    say("after\n", "stderr");
    expect(await texts(logs)).toEqual([
      "before",
      "[warren] 5 bytes of stdout were dropped here: this node could not keep them",
      "after",
      "[warren] 9 bytes of stderr were dropped here: this node could not keep them",
      "after",
    ]);
  });

  test("what could not be kept is not read as zeros by the next agent", async () => {
    const path = fresh();
    const { store, logs, say } = alone({}, { path });
    say("before\n");
    takeIn(logs);
    const file = copyPath(logs.directory, 1);
    const kept = readFileSync(file);
    rmSync(file);
    symlinkSync("/dev/full", file);
    symlinkSync("/dev/full", copyPath(logs.directory, 2));
    say("lost\n".repeat(200_000));
    takeIn(logs);
    say("after\n");
    logs.close();
    rmSync(file);
    rmSync(copyPath(logs.directory, 2), { force: true });
    appendFileSync(file, kept);
    const next = new LogStore(path, store.bounds).open("app", idOf(logs));
    takeIn(next);
    const lines = await texts(next, 1_000_000);
    expect([lines[0], lines.at(-1)]).toEqual(["before", "after"]);
    expect(lines.filter((text) => text.includes("\0"))).toEqual([]);
  });
});

describe("rule 6: a tenant that harms its own raw files harms nobody", () => {
  test("one that truncates its output begins anew", async () => {
    const { logs, say } = alone();
    const fd = openSync(logs.path("stdout"), "a");
    say("one\ntwo\nbegun");
    takeIn(logs);
    ftruncateSync(fd, 0);
    say("three\n");
    takeIn(logs);
    expect(await texts(logs)).toEqual(["one", "two", "begun", "three"]);
    ftruncateSync(fd, 3);
    closeSync(fd);
    takeIn(logs);
    say("four\n");
    expect((await texts(logs)).at(-1)).toContain("four");
  });

  test("one that makes a file of a terabyte of nothing costs no reading of it", async () => {
    const clock = new TestClock();
    const { store, logs, say } = alone({}, { clock });
    say("before\n");
    takeIn(logs);
    truncateSync(logs.path("stdout"), 2 ** 40);
    say("after\n");
    takeIn(logs);
    expect(store.stats().readBytes).toBeLessThan(32 * MiB);
    expect(store.stats().droppedBytes).toBeGreaterThan(2 ** 39);
    const lines = await texts(logs);
    expect([lines[0], lines.at(-1)]).toEqual(["before", "after"]);
    expect(lines[1]).toMatch(/^\[warren\] \d+ bytes of stdout were dropped here/);
    expect(lines).toHaveLength(3);
    // A file of that size is not kept for long.
    clock.ms += 10_000;
    takeIn(logs);
    say("and on\n");
    expect((await texts(logs)).at(-1)).toBe("and on");
    expect(statSync(logs.path("stdout")).size).toBeLessThan(1_000);
  });

  test("a pipe, a directory or a link in their place is not waited for", async () => {
    for (const make of [
      (path: string) => Bun.spawnSync(["mkfifo", path]),
      (path: string) => mkdirSync(path),
      (path: string) => symlinkSync("/dev/zero", path),
    ]) {
      const { store, logs, say } = alone();
      make(logs.path("stdout"));
      say("fine\n", "stderr");
      const stop = new AbortController();
      const pumping = store.run(stop.signal, silent);
      expect(logs.lastOutput().length).toBeLessThanOrEqual(1);
      stop.abort();
      await pumping;
    }
  });
});

describe("on real processes", () => {
  test.skipIf(isQuick)(
    "rule 9: one that prints 1 GiB is not blocked, and fills neither disk nor memory",
    async () => {
      await using run = await running("log-flood.ts", ["1024"]);
      let largest = 0;
      let sampled = 0;
      const rss = process.memoryUsage.rss();
      const path = run.logs.path("stdout");
      await waitUntil(
        () => {
          largest = Math.max(largest, statSync(path).blocks * 512);
          sampled++;
          return run.child.exitCode !== null;
        },
        { deadlineMs: 60_000, what: "it has printed all" },
      );
      expect(run.child.exitCode).toBe(0);
      const { size } = statSync(path);
      expect(size).toBeGreaterThanOrEqual(1024 * MiB);
      expect(sampled).toBeGreaterThan(10);
      expect(largest).toBeLessThan(256 * MiB);
      expect(process.memoryUsage.rss() - rss).toBeLessThan(256 * MiB);
      await run.end();
      expect(run.logs.lastOutput().at(-1)).toBe("the last line");
      const stats = run.store.stats();
      // Of what was written, a second or two of the rate and the burst are kept; the rest is counted.
      expect(stats.droppedBytes + stats.readBytes).toBeGreaterThanOrEqual(size);
      expect(stats.droppedBytes).toBeGreaterThan(900 * MiB);
      expect((await texts(run.logs)).some((text) => text.startsWith("[warren] "))).toBe(true);
    },
    90_000,
  );

  test("rule 9: a line of 10 MiB is cut, and the next one is whole", async () => {
    await using run = await running("log-long-line.ts", [], { burstBytes: 16 * MiB });
    expect(await run.child.exited).toBe(0);
    await run.end();
    const lines = await tail(run.logs);
    expect(lines.map(({ text, cut }) => [text.length, cut])).toEqual([
      [lineBytes, true],
      ["the next line".length, false],
    ]);
    expect(run.store.stats()).toMatchObject({ cutLines: 1, droppedBytes: 0 });
  });

  test("one that closes its stdout goes on, and so does its stderr", async () => {
    await using run = await running("log-close.ts", []);
    expect(await run.child.exited).toBe(0);
    await run.end();
    const lines = await tail(run.logs);
    expect(lines.filter((line) => line.stream === "stdout").map((line) => line.text)).toEqual(["before"]);
    expect(lines.filter((line) => line.stream === "stderr").map((line) => line.text)).toEqual(
      numbered(0, 100, "after"),
    );
  });

  test("two processes of one instance print whole lines", async () => {
    await using run = await running("log-two.ts", []);
    expect(await run.child.exited).toBe(0);
    await run.end();
    const all = await texts(run.logs);
    for (const who of ["parent", "child"]) {
      expect(all.filter((text) => text.startsWith(who))).toEqual(numbered(0, 2_000, who));
    }
    expect(all).toHaveLength(4_000);
  });

  test("an agent that is killed again and again loses no line and repeats none", async () => {
    const path = fresh();
    const id = ulid();
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
    console.log(`SEED=${seed}`);
    const random = seeded(seed);
    mkdirSync(join(path, `app.${id}`), { recursive: true });
    const raw = join(path, `app.${id}`, "stdout.log");
    let written = 0;
    const write = (count: number) => {
      appendFileSync(raw, asText(numbered(written, written + count)));
      written += count;
    };
    for (let round = 0; round < 6; round++) {
      const taker = Bun.spawn([process.execPath, join(fixtures, "log-taker.ts"), path, "app", id], {
        stdin: "ignore",
        stdout: "inherit",
        stderr: "inherit",
      });
      try {
        // Killed in the midst of its work: as soon as it has begun to take in what was written, and a bit.
        const before = copied(path, id);
        write(1 + Math.floor(random() * 200));
        await waitUntil(() => copied(path, id) > before, { deadlineMs, what: "it takes in lines" });
        for (let i = Math.floor(random() * 2_000); i > 0; i--) write(1 + Math.floor(random() * 3));
      } finally {
        taker.kill("SIGKILL");
        await taker.exited;
      }
    }
    const logs = new LogStore(path).open("app", id);
    takeIn(logs);
    expect(await texts(logs, 10_000_000)).toEqual(numbered(0, written));
  }, 60_000);
});

function copied(path: string, id: string): number {
  const at = join(path, `app.${id}`);
  return copyNumbers(at).reduce((sum, number) => sum + statSync(copyPath(at, number)).size, 0);
}

describe("the next agent", () => {
  test("goes on where the last one stopped, wherever in a batch that was", async () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
    console.log(`SEED=${seed}`);
    const random = seeded(seed);
    const path = fresh();
    const id = ulid();
    const bounds = { ...defaultLogBounds, fileBytes: 20_000, files: 1_000 };
    const expected: string[] = [];
    let open = new LogStore(path, bounds).open("app", id);
    for (let i = 0; i < 300; i++) {
      const line = `${i} ${"w".repeat(Math.floor(random() * 300))}`;
      const at = Math.floor(random() * line.length);
      expected.push(line);
      appendFileSync(open.path("stdout"), line.slice(0, at));
      if (random() < 0.5) open.step();
      appendFileSync(open.path("stdout"), `${line.slice(at)}\n`);
      if (random() < 0.7) continue;
      // Killed, after it wrote some of a batch that it did not finish.
      open.close();
      const last = copyNumbers(open.directory).at(-1);
      if (last && random() < 0.5) {
        const half = encodeLines("stdout", 1, [{ bytes: Buffer.from("repeated"), cut: false }]);
        const file = random() < 0.5 ? last : last + 1;
        appendFileSync(copyPath(open.directory, file), half.subarray(0, Math.floor(random() * 40)));
      }
      open = new LogStore(path, bounds).open("app", id);
    }
    expect(await texts(open)).toEqual(expected);
  });

  test("goes on after a line that was being cut, and after a gap that was not said yet", async () => {
    const path = fresh();
    const clock = new TestClock();
    const { logs, say, store } = alone({ bytesPerSecond: 1_000, burstBytes: 100_000 }, { path, clock });
    const id = idOf(logs);
    say("x".repeat(20_000));
    takeIn(logs);
    logs.close();
    const second = new LogStore(path, store.bounds, clock).open("app", id);
    say(`${"x".repeat(5)}\nnext\n`);
    takeIn(second);
    expect((await tail(second)).map(({ text, cut }) => [text.length, cut])).toEqual([
      [lineBytes, true],
      [4, false],
    ]);
    say(asText(numbered(0, 30_000)));
    takeIn(second);
    second.close();
    const third = new LogStore(path, store.bounds, clock).open("app", id);
    takeIn(third);
    const lines = await texts(third, 100_000);
    expect(lines.filter((text) => text.startsWith("[warren]"))).toHaveLength(1);
    expect(lines.at(-1)).toBe("line 29999");
  });

  test("takes in the last words of one that ended with the agent", async () => {
    const path = fresh();
    const { logs, say } = alone({}, { path });
    const id = idOf(logs);
    say("last words\n");
    const store = new LogStore(path);
    const stop = new AbortController();
    const pumping = store.run(stop.signal, silent);
    await waitUntil(() => !existsSync(logs.path("stdout")), { deadlineMs });
    expect(await texts(store.find(id)!)).toEqual(["last words"]);
    stop.abort();
    await pumping;
  });
});

describe("rule 9: of instances that ended", () => {
  test("the last ones of each tenant are kept", () => {
    const path = fresh();
    const bounds = { ...defaultLogBounds, keepPerTenant: 2, keepInAll: 5 };
    const store = new LogStore(path, bounds);
    const ids = Array.from({ length: 12 }, () => ulid());
    for (const [i, id] of ids.entries()) {
      store.open(`t${i % 4}`, id);
      store.ended(`t${i % 4}`, id);
    }
    expect(ids.map((id) => store.find(id) !== undefined)).toEqual([
      ...Array.from({ length: 7 }, () => false),
      ...Array.from({ length: 5 }, () => true),
    ]);
    const again = new LogStore(path, { ...bounds, keepPerTenant: 1 });
    again.prune();
    expect(ids.filter((id) => again.find(id))).toEqual(ids.slice(8));
  });

  test("the last output is at most 20 lines of at most 1 KiB, and none where there is none", () => {
    const { logs, say } = alone();
    expect(logs.lastOutput()).toEqual([]);
    say(asText(numbered(0, 30)));
    takeIn(logs);
    say(`${"é".repeat(5_000)}\n`, "stderr");
    say("no newline", "stderr");
    const last = logs.lastOutput();
    expect(last.slice(0, 18)).toEqual(numbered(12, 30));
    expect(last.at(-1)).toBe("no newline");
    expect(Buffer.byteLength(last[18]!)).toBeLessThanOrEqual(1_024);
    expect(last).toHaveLength(20);
    rmSync(logs.directory, { recursive: true });
    expect(logs.lastOutput().length).toBeLessThanOrEqual(20);
  });
});
