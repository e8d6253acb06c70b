import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { createLogger } from "@warren/common/log";
import { NodeChange, NodeChangedSchema } from "@warren/proto/common";
import type { Journal } from "@warren/store";
import { Outbox } from "../src/outbox.ts";

test("an event that comes just as the last one is stored does not wait for the next one", async () => {
  const stored: string[] = [];
  const journal: Pick<Journal, "append"> = {
    async append(records) {
      stored.push(...records.map(({ id }) => id));
    },
  };
  const outbox = new Outbox({
    journal: journal as Journal,
    source: "s",
    epoch: 1n,
    style: { cell: "c", format: "json" },
    log: createLogger({ process: "scheduler" }),
  });
  const publish = () => {
    const value = create(NodeChangedSchema, { node: "n", change: NodeChange.UP });
    outbox.publish("", { case: "node", value }, 0);
  };
  const pass = async (turns: number) => {
    for (let i = 0; i < turns; i++) await Promise.resolve();
  };
  // At each of the turns that the end of a batch takes.
  for (let turns = 0; turns < 12; turns++) {
    publish();
    await pass(turns);
    publish();
    await pass(100);
    expect(stored).toHaveLength(2 * (turns + 1));
  }
  await outbox.stop(100);
});
