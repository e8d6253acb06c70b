import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { ConfigError, envName, field, loadConfig, parseDuration, parseSize } from "../src/config.ts";
import { isKey } from "../src/ids.ts";
import { identify, isAlive, startTimeOf } from "../src/process.ts";
import {
  backoff,
  DeadlineError,
  fromDuration,
  fromTimestamp,
  toDuration,
  toTimestamp,
  waitUntil,
  withDeadline,
} from "../src/time.ts";

describe("configuration", () => {
  const schema = z.object({
    port: field.port().default(7420),
    idleAfter: field.duration().default(300_000),
    memory: field.size().optional(),
    labels: field.pairs().default({}),
    name: field.text(),
  });
  const load = (flags: Record<string, unknown>, env: Record<string, string> = {}, file?: string) =>
    loadConfig(schema, { process: "scheduler", flags, env, file });

  test("defaults, environment and flags, the later winning", () => {
    expect(load({ name: "a" })).toEqual({ port: 7420, idleAfter: 300_000, labels: {}, name: "a" });
    const env = {
      WARREN_SCHEDULER_PORT: "1",
      WARREN_SCHEDULER_IDLE_AFTER: "5s",
      WARREN_SCHEDULER_LABELS: "zone=a,disk=ssd",
    };
    expect(load({ name: "a", port: "2" }, env)).toEqual({
      port: 2,
      idleAfter: 5_000,
      labels: { zone: "a", disk: "ssd" },
      name: "a",
    });
  });

  test("every wrong field is named by where it came from", () => {
    const error = (() => {
      try {
        load({ port: "x" }, { WARREN_SCHEDULER_IDLE_AFTER: "soon" });
      } catch (e) {
        return e as Error;
      }
    })();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error?.message).toContain("--port: must be a port");
    expect(error?.message).toContain("WARREN_SCHEDULER_IDLE_AFTER: must be a duration like");
    expect(error?.message).toContain("--name (or WARREN_SCHEDULER_NAME): is needed");
  });

  test("units", () => {
    expect(["250ms", "1.5s", "2m", "1h", "1d"].map(parseDuration)).toEqual([
      250, 1_500, 120_000, 3_600_000, 86_400_000,
    ]);
    expect(["", "5", "5 s", "-1s", "1w"].map(parseDuration)).toEqual(Array(5).fill(undefined));
    expect(["1", "2KiB", "512MiB", "1.5GiB"].map(parseSize)).toEqual([1, 2048, 536870912, 1610612736]);
    expect(["3k", "256m", "1.5g"].map(parseSize)).toEqual([3072, 268435456, 1610612736]);
    expect(["1MB", "1M", "m", "-1m", "x"].map(parseSize)).toEqual(Array(5).fill(undefined));
    expect(envName("agent", "maxInstances")).toBe("WARREN_AGENT_MAX_INSTANCES");
  });
});

describe("time", () => {
  test("durations and timestamps survive the way there and back", () => {
    for (const ms of [0, 1, 999.5, 1_000, 123_456.789])
      expect(fromDuration(toDuration(ms), -1)).toBeCloseTo(ms, 5);
    for (const ms of [0, 1_700_000_000_123, -1]) expect(fromTimestamp(toTimestamp(ms), 0)).toBeCloseTo(ms, 3);
    expect(fromDuration(undefined, 7)).toBe(7);
  });

  test("back-off grows to its bound, within its jitter", () => {
    const delay = (attempt: number, random: number) =>
      backoff({ baseMs: 100, maxMs: 1_000, attempt, random: () => random });
    expect([0, 1, 2, 3, 10, 1e6].map((n) => delay(n, 0))).toEqual([50, 100, 200, 400, 500, 500]);
    expect([0, 1, 10].map((n) => Math.round(delay(n, 0.999)))).toEqual([100, 200, 1000]);
  });

  test("waits end by their deadline, naming what was waited for", async () => {
    expect(await withDeadline(Promise.resolve(1), 50, "it")).toBe(1);
    await expect(withDeadline(new Promise(() => {}), 5, "the sea")).rejects.toThrow(
      "the sea: not done within 5 ms",
    );
    let n = 0;
    expect(await waitUntil(() => (++n > 3 ? "yes" : ""), { deadlineMs: 1_000 })).toBe("yes");
    await expect(waitUntil(() => false, { deadlineMs: 5, what: "never" })).rejects.toBeInstanceOf(
      DeadlineError,
    );
  });
});

describe("identities", () => {
  test("keys are DNS labels", () => {
    expect(["a", "a-b", "0", "a".repeat(63)].every(isKey)).toBe(true);
    expect(["", "A", "-a", "a-", "a.b", "a".repeat(64), "../x", "a\n"].some(isKey)).toBe(false);
  });

  test("a process is its pid, start time and boot; a pid alone is nobody", async () => {
    const me = identify(process.pid)!;
    expect(isAlive(me)).toBe(true);
    expect(isAlive({ ...me, startTime: "1" })).toBe(false);
    expect(isAlive({ ...me, bootId: "another" })).toBe(false);
    const child = Bun.spawn(["true"]);
    await child.exited;
    expect(startTimeOf(child.pid)).toBeUndefined();
  });
});
