/** What was counted survives the agent by one observation interval at most (rule 8). */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger } from "@warren/common/log";
import type { InstanceRecord } from "../src/records.ts";
import { Tallies } from "../src/tallies.ts";
import { noCounters } from "../src/usage.ts";

const log = createLogger({ process: "agent", level: "silent" });
const counted = (wallMs: number) => ({ ...noCounters(0), wallMs, cpuUs: wallMs * 2 });
const recordOf = (id: string, wallMs: number) =>
  ({ ref: { id }, counters: counted(wallMs) }) as unknown as InstanceRecord;

let directory: string;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "warren-tallies-")), "tallies");
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true, force: true }));

const wallOf = (id: string, record: number): number =>
  new Tallies(directory, log).brought([recordOf(id, record)])[0]!.counters.wallMs;

test("the next agent goes on from what was counted last, by the record or since", () => {
  const tallies = new Tallies(directory, log);
  for (const wallMs of [1_000, 2_000, 3_000]) tallies.save([{ id: "a", counters: counted(wallMs) }]);
  expect(wallOf("a", 500)).toBe(3_000);
  expect(wallOf("a", 4_000)).toBe(4_000);
  expect(wallOf("b", 500)).toBe(500);
  expect(readdirSync(directory)).toHaveLength(1);
});

test("one that was half written is passed over for the one before, and counting goes on above it", () => {
  new Tallies(directory, log).save([{ id: "a", counters: counted(1_000) }]);
  writeFileSync(join(directory, "2"), '{"a":{"wallMs":20');
  expect(wallOf("a", 500)).toBe(1_000);
  new Tallies(directory, log).save([{ id: "a", counters: counted(5_000) }]);
  expect(wallOf("a", 500)).toBe(5_000);
  expect(readdirSync(directory)).toHaveLength(1);
});

test("where nothing can be written, nothing fails", () => {
  writeFileSync(directory, "a file, where a directory should be");
  const tallies = new Tallies(directory, log);
  tallies.save([{ id: "a", counters: counted(1_000) }]);
  expect(() => tallies.save([])).not.toThrow();
});
