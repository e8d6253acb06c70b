import { expect, test } from "bun:test";
import { createLogger } from "@warren/common/log";
import type { StateLog } from "@warren/store";
import { StateWriter } from "../src/state-writer.ts";

const value = new Uint8Array([1]);

test("what is appended in answer to the last append is not left behind", async () => {
  const appended: string[] = [];
  let seq = 0n;
  const state: Pick<StateLog, "append"> = {
    async append(key, _value, expected) {
      expect(expected).toBe(seq);
      appended.push(key);
      return ++seq;
    },
  };
  const writer = new StateWriter({
    state: state as StateLog,
    lastSeq: 0n,
    log: createLogger({ process: "scheduler" }),
    onStale: (error) => {
      throw error;
    },
    deadlineMs: 2_000,
  });
  // As the core does: that a spec is durable makes a placement, which is persisted in turn.
  const chain = async (depth: number): Promise<void> => {
    await writer.append({ key: `k${depth}`, value });
    if (depth > 0) await chain(depth - 1);
  };
  await Promise.all([chain(3), chain(5)]);
  expect(appended).toHaveLength(10);
  await writer.stop(100);
});

test("rule 9: while the store is away, those that nobody waits for any more take no place from others", async () => {
  let up = () => {};
  const away = new Promise<void>((resolve) => {
    up = resolve;
  });
  const appended: string[] = [];
  const state: Pick<StateLog, "append"> = {
    async append(key, _value, expected) {
      await away;
      appended.push(key);
      return expected + 1n;
    },
  };
  const writer = new StateWriter({
    state: state as StateLog,
    lastSeq: 0n,
    log: createLogger({ process: "scheduler" }),
    onStale: () => {},
    deadlineMs: 200,
    limit: 3,
  });
  const late = await Promise.allSettled(["a", "b", "c"].map((key) => writer.append({ key, value })));
  expect(late.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  const next = writer.append({ key: "d", value });
  up();
  await next;
  expect(appended).toEqual(["a", "d"]);
  await writer.stop(100);
});
