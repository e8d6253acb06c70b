/** Records on disk until the scheduler has them. */
import { afterAll, describe, expect, test } from "bun:test";
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { createLogger } from "@warren/common/log";
import { InstanceRefSchema, InstanceState, TransitionSchema, UsageReportSchema } from "@warren/proto/common";
import { Spool, type What } from "../src/spool.ts";

const silent = createLogger({ process: "agent", level: "silent" });
const directory = mkdtempSync(join(tmpdir(), "warren-spool-"));
let made = 0;
const fresh = () => join(directory, `${++made}`);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("rule 8, rule 9: the spool", () => {
  const ref = (id: string) => create(InstanceRefSchema, { id, tenant: "app", node: "n1" });
  const transition = (id: string, to = InstanceState.READY): What => ({
    case: "transition",
    value: create(TransitionSchema, { instance: ref(id), to }),
  });
  const usage = (id: string, cpuUs: number): What => ({
    case: "usage",
    value: create(UsageReportSchema, { instance: ref(id), usage: { cpuUs: BigInt(cpuUs) } }),
  });

  /** As a record's id in the journal is made. */
  const ids = (spool: Spool) => {
    const { stream, records } = spool.batch(100, 1e9);
    return records.map(({ seq }) => `${stream}:${seq}`);
  };
  const records = (spool: Spool) => spool.batch(100, 1e9).records;
  const ack = (spool: Spool, seq: bigint) => spool.ack(spool.batch(1, 1).stream, seq);

  test("rule 8: what was not acknowledged is there after a restart, under the ids that it had", () => {
    const path = fresh();
    const spool = new Spool(path, silent);
    for (let i = 0; i < 5; i++) spool.append(transition(`i${i}`), 1000 + i);
    ack(spool, 2n);
    const left = ids(spool);
    const next = new Spool(path, silent);
    expect(ids(next)).toEqual(left);
    next.append(transition("x"), 1);
    const third = new Spool(path, silent);
    expect(ids(third)).toEqual(left);
    ack(third, 5n);
    expect(ids(third)).toHaveLength(1);
    expect(left).not.toContain(ids(third)[0]!);
  });

  test("rule 8: an id is never given twice, though a full disk kept nothing of what was told under it", () => {
    const path = fresh();
    new Spool(path, silent).append(transition("before"), 1);
    const told = new Set<string>();
    mkdirSync(`${path}.new`); // from here on nothing can be written
    const full = new Spool(path, silent);
    full.append(transition("a"), 1);
    expect(full.isFull(0)).toBe(true);
    full.ack(full.batch(1, 1).stream, 1n); // the one before
    for (const id of ids(full)) told.add(id);
    expect(told.size).toBe(1);
    rmSync(`${path}.new`, { recursive: true });
    const next = new Spool(path, silent);
    next.append(transition("b"), 2);
    for (const id of ids(next)) expect(told.has(id)).toBe(false);
  });

  test("the file of an agent from before streams were named anew at each start is read", () => {
    const path = fresh();
    const line = (seq: number) => JSON.stringify({ seq: `${seq}`, at: "2026-06-01T10:00:00Z", usage: {} });
    writeFileSync(
      path,
      [JSON.stringify({ stream: "OLD", next: "4" }), line(1), line(2), line(3), '{"ack":"1"}', ""].join("\n"),
    );
    expect(ids(new Spool(path, silent))).toEqual(["OLD:2", "OLD:3"]);
  });

  test("half a line at the end is left out", () => {
    const path = fresh();
    new Spool(path, silent).append(transition("a"), 1);
    appendFileSync(path, '{"seq":"2","at":"20');
    const spool = new Spool(path, silent);
    expect(spool.size).toBe(1);
    spool.append(transition("b"), 1);
    expect(ids(new Spool(path, silent))).toEqual([ids(spool)[0]!]);
  });

  test("rule 9: over the bound intermediate usage goes first, transitions never; then new starts are refused", () => {
    const spool = new Spool(fresh(), silent, 50);
    for (let i = 0; i < 40; i++) spool.append(usage(`i${i % 2}`, i), i);
    for (let i = 0; i < 20; i++) spool.append(transition("i0"), i);
    expect(spool.size).toBeLessThanOrEqual(50);
    const kept = records(spool);
    expect(kept.filter(({ what }) => what.case === "transition")).toHaveLength(20);
    const newest = kept.flatMap(({ what }) => (what.case === "usage" ? [what.value.usage!.cpuUs] : []));
    expect(newest).toContain(39n);
    expect(spool.isFull(0)).toBe(false);
    for (let i = 0; i < 40; i++) spool.append(transition("i1"), i);
    expect(spool.isFull(0)).toBe(true);
    expect(records(spool).filter(({ what }) => what.case === "transition")).toHaveLength(60);
    ack(spool, kept.at(-1)!.seq);
    expect(spool.isFull(0)).toBe(false);
  });

  test("rule 9: the file does not grow for ever while everything is acknowledged", () => {
    const path = fresh();
    const spool = new Spool(path, silent);
    for (let i = 1; i <= 5_000; i++) {
      spool.append(usage("a", i), i);
      ack(spool, BigInt(i));
    }
    expect(statSync(path).size).toBeLessThan(500_000);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("a batch is bounded by bytes, but never empty", () => {
    const spool = new Spool(fresh(), silent);
    for (let i = 0; i < 5; i++) spool.append(transition(`i${i}`), i);
    expect(spool.batch(100, 1).records).toHaveLength(1);
    expect(spool.batch(3, 1e9).records).toHaveLength(3);
  });

  test("the exit of an instance is found in it", () => {
    const spool = new Spool(fresh(), silent);
    spool.append(transition("a", InstanceState.READY), 1);
    expect(spool.exitOf("a")).toBeUndefined();
    spool.append(transition("a", InstanceState.EXITED), 1);
    expect(spool.exitOf("a")).toBeDefined();
  });
});
