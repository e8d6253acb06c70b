/** Tables fit the terminal: what is left out, what is cut, and what is not when nobody looks. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration, toTimestamp } from "@warren/common/time";
import { InstanceMode, InstanceSchema, InstanceState, NodeSchema, NodeState } from "@warren/proto/common";
import { GetStatsResponseSchema } from "@warren/proto/scheduler";
import { type Column, clip, fittingTable } from "../src/columns.ts";
import { instanceRow, psColumns } from "../src/commands/lists.ts";
import { nodeColumns } from "../src/commands/nodes.ts";
import { topText } from "../src/commands/top.ts";

const now = Date.now();
const instances = Array.from({ length: 30 }, (_, n) =>
  create(InstanceSchema, {
    ref: { id: `01J0000000000000000000${1000 + n}`, tenant: `shop-of-${n}`, node: "n1", slot: 0 },
    state: InstanceState.READY,
    mode: InstanceMode.FROZEN,
    endpoint: { host: "127.0.0.1", port: 20_000 + n },
    pid: 123_456,
    startedAt: toTimestamp(now - 4_000_000),
    lastUsedAt: toTimestamp(now - 60_000),
    startDuration: toDuration(345),
    usage: { memoryBytes: 3n << 20n, rssBytes: 37n << 20n, cpuUs: 1_234_567n },
  }),
);
const node = create(NodeSchema, {
  name: "n1",
  state: NodeState.UP,
  draining: true,
  instances: 30,
  agentUrl: "https://127.0.0.1:41234",
  capacity: { memoryBytes: 8n << 30n, cpuMillis: 2000 },
  pressure: { frozenInstances: 12, tenantMemoryBytes: 1n << 30n, headroomMemoryBytes: 5n << 30n },
});
const stats = create(GetStatsResponseSchema, {
  cell: "local",
  live: 30,
  maxConcurrent: 1000,
  frozen: 30,
  tenants: 4000,
});

const widest = (text: string): number =>
  Math.max(...text.split("\n").map((line) => Bun.stringWidth(Bun.stripANSI(line))));
const ps = (width: number | undefined) => fittingTable(psColumns, instances.map(instanceRow), { width });
const nodes = (width: number | undefined) => fittingTable(nodeColumns, [node], { width });
const top = (width: number | undefined, rows = 100) =>
  topText(stats, [node], instances, { before: new Map(), now, rows, width, interval: 1000 });

describe("ps, nodes and top fit the terminal", () => {
  for (const [name, text] of Object.entries({ ps, nodes, top })) {
    for (const width of [120, 80, 50, 30]) {
      test(`${name} in ${width} columns`, () => {
        expect(widest(text(width))).toBeLessThanOrEqual(width);
        expect(text(width)).toContain("STATE");
      });
    }
    test(`${name} shows all columns where no width is given`, () => {
      expect(widest(text(undefined))).toBeGreaterThan(80);
      expect(text(undefined)).not.toContain("--wide");
    });
  }

  test("the least important columns go first, in their order, and are named", () => {
    const [head, ...others] = Bun.stripANSI(ps(80)).split("\n");
    expect(head!.split(/ +/)).toEqual(["TENANT", "INSTANCE", "NODE", "STATE", "IDLE", "MEMORY", "CPU"]);
    expect(others.at(-2)).toBe("… and isolation, address, pid, up, start, open, rss: --wide");
    expect(Bun.stripANSI(ps(50)).split("\n")[0]!.split(/ +/)).not.toContain("INSTANCE");
  });

  test("ps tells the resident set from what is charged", () => {
    const [head, first] = Bun.stripANSI(ps(undefined)).split("\n");
    const cellOf = (title: string) => first!.slice(head!.indexOf(title)).split(/ {2,}/)[0];
    expect([cellOf("MEMORY"), cellOf("RSS")]).toEqual(["3.0 MiB", "37.0 MiB"]);
  });

  test("top has no more lines than the terminal, however many its head takes", () => {
    for (const width of [200, 80, 50, 30]) {
      const lines = top(width, 24).trimEnd().split("\n");
      expect(lines.length).toBeLessThanOrEqual(24);
      expect(Bun.stripANSI(lines.at(-1)!)).toMatch(/^… and \d+ more$/);
    }
  });

  test("where even the most important do not fit, the widest cell is cut", () => {
    const columns: Column<string>[] = [
      { title: "TENANT", rank: 0, text: () => "shop" },
      { title: "STATE", rank: 0, text: (why) => why },
    ];
    const text = fittingTable(columns, ["back-off 30s: it ended instead of listening", "cold"], {
      width: 30,
    });
    expect(Bun.stripANSI(text)).toContain("shop    back-off 30s: it ende…\n");
    expect(clip("日本語テキスト", 7)).toBe("日本語…");
  });
});
