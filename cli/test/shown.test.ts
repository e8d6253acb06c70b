/** What verbs print of nodes, instances and events. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  EventSchema,
  InstanceMode,
  InstanceState,
  Isolation,
  NodeSchema,
  NodeState,
  TransitionSchema,
} from "@warren/proto/common";
import { nodeText } from "../src/commands/nodes.ts";
import { eventLine, leftOutText } from "../src/commands/streams.ts";

describe("what is shown of isolation and sleep", () => {
  const at = Date.UTC(2026, 0, 1);

  test("a node: its rungs, its host and what that lacks, frozen instances, headroom", () => {
    const node = create(NodeSchema, {
      name: "n1",
      state: NodeState.UP,
      instances: 3,
      isolation: [Isolation.NONE, Isolation.USER],
      host: { kind: "none", missing: ["no limits: no writable cgroup v2", "no paging out: no swap"] },
      capacity: { memoryBytes: 8n << 30n, cpuMillis: 4000 },
      pressure: {
        frozenInstances: 2,
        liveInstances: 3,
        waitingStarts: 1,
        headroomMemoryBytes: 5n << 30n,
        headroomCpuMillis: 3500,
        ioSomeAvg10: 12.34,
      },
    });
    const text = nodeText(node, at);
    for (const line of [
      "isolation  user",
      "host       none",
      "lacks      no limits: no writable cgroup v2",
      "lacks      no paging out: no swap",
      "instances  3, alive 3, frozen 2, starts waiting 1",
      "headroom 5.0 GiB",
      "headroom 3.50",
      "io 12.3 %",
    ])
      expect(text).toContain(line);
    // An agent that has not joined this scheduler yet has said nothing.
    expect(nodeText(create(NodeSchema, { name: "n2" }), at)).toContain("isolation  -\nhost       -\n");
  });

  test("an event of a change of mode says the modes and how long, not a start", () => {
    const event = create(EventSchema, {
      time: toTimestamp(at),
      tenant: "shop",
      payload: {
        case: "transition",
        value: create(TransitionSchema, {
          instance: { id: "01J00000000000000000000001", tenant: "shop", node: "n1" },
          from: InstanceState.READY,
          to: InstanceState.READY,
          fromMode: InstanceMode.ACTIVE,
          toMode: InstanceMode.FROZEN,
          after: toDuration(65_000),
        }),
      },
    });
    expect(eventLine(event)).toContain("active → frozen after 1m5s on n1");
  });

  test("logs of more instances than are read say how many there are, and how to read another", () => {
    expect(leftOutText(100, 30)).toBe(
      "130 instances are alive: only the newest 100 are read at once; --instance ID reads another ('warren ps' lists them)",
    );
  });
});
