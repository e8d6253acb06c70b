import { expect, test } from "bun:test";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import { waitUntil } from "@warren/common/time";
import type { TrafficRecord } from "@warren/proto/scheduler";
import { Traffic } from "../src/traffic.ts";
import { TrafficReporter } from "../src/traffic-reporter.ts";

/** Traffic that never rests: whenever the scheduler is told, more has come. */
function busy(tenants: number, maxBatch: number, intervalMs: number) {
  const traffic = new Traffic({ gateway: `g-${ulid()}`, maxBatch, keep: 10_000 });
  const names = Array.from({ length: tenants }, (_, i) => `t${i}`);
  let resting = false;
  const come = () => {
    for (const name of names) traffic.reached(name);
  };
  come();
  const told: TrafficRecord[][] = [];
  const reporter = new TrafficReporter({
    traffic,
    link: {
      async reportTraffic(records) {
        told.push([...records]);
        // A turn of the loop, as a call has it.
        await new Promise((turn) => setImmediate(turn));
        if (!resting) come();
      },
    },
    log: createLogger({ process: "test", level: "silent" }),
    intervalMs,
    deadlineMs: 1_000,
    lastWordsMs: 1_000,
  });
  const rest = () => {
    resting = true;
  };
  return { told, rest, reporter };
}

test("rule 9: a tenant that is never quiet is told of once an interval, not as fast as the scheduler answers", async () => {
  const { told, rest, reporter } = busy(3, 10, 100);
  reporter.start();
  const began = performance.now();
  await waitUntil(() => told.length >= 3, { deadlineMs: 5_000 });
  expect(performance.now() - began).toBeGreaterThan(200);
  rest();
  await reporter.stop();
});

test("of more busy tenants than a batch holds each has its turn", async () => {
  const { told, rest, reporter } = busy(5, 2, 20);
  reporter.start();
  await waitUntil(() => told.length >= 6, { deadlineMs: 5_000 });
  rest();
  await reporter.stop();
  const firstRounds = told.slice(0, 6).flat();
  expect(new Set(firstRounds.map(({ report }) => report!.tenant)).size).toBe(5);
});
