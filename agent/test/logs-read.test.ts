/** How output is read: since a moment, with a line that has no newline yet, with how its instance ended. */
import { afterAll, describe, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ulid } from "@warren/common/ids";
import type { Clock } from "@warren/common/time";
import { ExitReason } from "@warren/proto/common";
import { describeExit, endRemark } from "../src/describe.ts";
import { Begun } from "../src/logs/begun.ts";
import type { ReadOutput } from "../src/logs/instance.ts";
import type { Line } from "../src/logs/line.ts";
import { defaultLogBounds, type InstanceLogs, LogStore } from "../src/logs.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-agent-logs-"));
afterAll(() => rmSync(directory, { recursive: true }));

class TestClock implements Clock {
  ms = 1_763_724_000_000;
  now = () => this.ms;
  monotonic = () => this.ms;
}

function alone() {
  const clock = new TestClock();
  const store = new LogStore(join(directory, ulid()), defaultLogBounds, clock);
  const id = ulid();
  const logs = store.open("app", id);
  const say = (text: string, stream: "stdout" | "stderr" = "stdout") =>
    appendFileSync(logs.path(stream), text);
  return { clock, store, id, logs, say };
}

function takeIn(logs: InstanceLogs): void {
  while (logs.step() === "more");
}

async function read(logs: InstanceLogs, options: Partial<ReadOutput> = {}): Promise<Line[]> {
  const all: Line[] = [];
  const how = { tail: 100, follow: false, ended: () => false, ...options };
  for await (const lines of logs.read(how, Date.now, new AbortController().signal)) all.push(...lines);
  return all;
}

const textsOf = (lines: readonly Line[]) => lines.map(({ text }) => text);

describe("lines since a moment", () => {
  test("those that were read before are left out, however many may be told", async () => {
    const { clock, logs, say } = alone();
    for (const [i, at] of [0, 1_000, 2_000, 3_000].entries()) {
      clock.ms = 1_763_724_000_000 + at;
      say(`line ${i}\nand ${i}\n`);
      takeIn(logs);
    }
    const since = 1_763_724_002_000;
    expect(textsOf(await read(logs, { since }))).toEqual(["line 2", "and 2", "line 3", "and 3"]);
    expect(textsOf(await read(logs, { since, tail: 1 }))).toEqual(["and 3"]);
    expect(textsOf(await read(logs, { since: since + 60_000 }))).toEqual([]);
  });
});

describe("a line without a newline", () => {
  test("is told while the instance lives, and is an ordinary line once it has ended", async () => {
    const { store, id, logs, say } = alone();
    say("whole\nName? ");
    say("warning: no", "stderr");
    expect(textsOf(await read(logs))).toEqual(["whole"]);
    const lines = await read(logs, { partial: true });
    expect(lines.map(({ stream, text, partial }) => [stream, text, partial])).toEqual([
      ["stdout", "whole", undefined],
      ["stdout", "Name? ", true],
      ["stderr", "warning: no", true],
    ]);
    say("Ada\n");
    expect(textsOf(await read(logs, { partial: true }))).toEqual(["whole", "Name? Ada", "warning: no"]);
    store.ended("app", id);
    takeIn(logs);
    const after = await read(logs, { partial: true });
    expect(after.at(-1)).toMatchObject({ text: "warning: no", stream: "stderr" });
    expect(after.at(-1)?.partial).toBeUndefined();
  });

  test("is told to a follower once nothing was added for a while, and once only", () => {
    const begun = new Begun();
    const told = (text: string, now: number) => textsOf(begun.told([["stdout", text]], now, false));
    expect(told("10 %", 0)).toEqual([]);
    expect(told("10 % 20 %", 200)).toEqual([]);
    expect(told("10 % 20 %", 400)).toEqual([]);
    expect(told("10 % 20 %", 450)).toEqual(["10 % 20 %"]);
    expect(told("10 % 20 %", 1_000)).toEqual([]);
    expect(told("", 1_100)).toEqual([]);
    expect(told("10 % 20 %", 1_200)).toEqual([]);
    expect(told("10 % 20 %", 1_450)).toEqual(["10 % 20 %"]);
  });
});

describe("how an instance ended", () => {
  test("is the last line of its output, after all that it wrote", async () => {
    const { store, id, logs, say } = alone();
    say("last words\nand more", "stderr");
    say("unfinished");
    store.ended("app", id, "ended: crashed with code 3");
    takeIn(logs);
    const texts = textsOf(await read(store.find(id)!));
    expect(texts.at(-1)).toBe("[warren] ended: crashed with code 3");
    expect([...texts].sort()).toEqual([
      "[warren] ended: crashed with code 3",
      "and more",
      "last words",
      "unfinished",
    ]);
  });

  test("is one line that says reason, code or signal, and why", () => {
    const remark = (exit: Parameters<typeof describeExit>[0]) => endRemark(describeExit(exit, () => []));
    expect(remark({ reason: ExitReason.CRASHED, code: 3 })).toBe("ended: crashed with code 3");
    expect(remark({ reason: ExitReason.OOM_KILLED, signal: "SIGKILL" })).toBe("ended: oom-killed by SIGKILL");
    expect(remark({ reason: ExitReason.CRASHED, message: "nothing to run:\nno entry" })).toBe(
      "ended: crashed: nothing to run: no entry",
    );
  });
});

describe("rule 9: of instances that ended", () => {
  test("the oldest output goes once all of it is over its bound in bytes; the newest stays, however large", () => {
    const bounds = { ...defaultLogBounds, keepPerTenant: 100, keepBytes: 3_000 };
    const store = new LogStore(join(directory, ulid()), bounds, new TestClock());
    const ids = [1_000, 1_000, 1_000, 5_000].map((bytes) => {
      const id = ulid();
      const logs = store.open("app", id);
      appendFileSync(logs.path("stdout"), `${"x".repeat(bytes - 1)}\n`);
      takeIn(logs);
      store.ended("app", id);
      takeIn(logs);
      return id;
    });
    expect(ids.map((id) => store.find(id) !== undefined)).toEqual([false, false, false, true]);
  });
});
