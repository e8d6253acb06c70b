import { expect, test } from "bun:test";
import { Watchers } from "../src/watchers.ts";

const complete = (i: number) =>
  ({ update: "complete", node: `n${i}`, n: 1, endpoints: [], agentUrl: `https://n${i}` }) as const;
const change = { update: "incremental", n: 2, endpoints: [], withdrawn: ["x"] } as const;

test("a watcher is told of as many nodes as there are; rule 9: of changes, what it cannot follow is bounded", async () => {
  const watchers = new Watchers(1n);
  const nodes = 15_000;
  const stop = new AbortController();
  const watch = watchers.watch("g", stop.signal, () => {
    for (let i = 0; i < nodes; i++) watchers.deliver(complete(i), "g");
  });
  let told = 0;
  for await (const { node } of watch) {
    if (node) told++;
    if (told === nodes) break;
  }
  expect(told).toBe(nodes);

  const slow = watchers.watch("slow", stop.signal, () => {});
  await slow.next();
  for (let i = 0; i < 20_000; i++) watchers.deliver(change);
  const follow = async () => {
    while (!(await slow.next()).done);
  };
  await expect(follow()).rejects.toThrow("watch anew");
  stop.abort();
  watchers.close();
});
