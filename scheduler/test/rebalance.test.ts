/** Evening out nodes: off unless asked for, one instance at a time, and nobody misses it. */
import { describe, expect, test } from "bun:test";
import { Cluster } from "./cluster.ts";

const GiB = 2 ** 30;

/** All on n1, and then n2 comes. */
function lopsided(rebalance: boolean): Cluster {
  const config = { rebalance, rebalanceMs: 1_000, defaultMemoryBytes: GiB, overcommitMemory: 2 };
  const c = new Cluster({ nodes: 1, config });
  c.addGateway("g");
  for (const key of ["a", "b", "c", "d", "e", "f"]) {
    c.apply(key);
    c.ensure(key);
    c.run(200);
  }
  c.addNode("n2");
  return c;
}

const counts = (c: Cluster) => ["n1", "n2"].map((name) => c.core.state.nodes.get(name)!.placed);

describe("rebalance", () => {
  test("is off by default", () => {
    const c = lopsided(false);
    c.run(20_000);
    expect(counts(c)).toEqual([6, 0]);
  });

  test("moves one at a time, each once its successor is ready, until the difference is not worth it", () => {
    const c = lopsided(true);
    let most = 0;
    for (let i = 0; i < 400; i++) {
      c.run(50);
      most = Math.max(most, c.core.state.moves.size);
      const ready = [...c.core.state.instances.values()].filter(({ phase }) => phase.kind === "ready");
      expect(new Set(ready.map(({ ref }) => ref.tenant)).size).toBe(6);
    }
    expect(most).toBe(1);
    expect(counts(c)).toEqual([4, 2]);
    expect(c.core.state.counts.rebalanced).toBe(2);
  });

  test("leaves alone what has a request in flight", () => {
    const c = lopsided(true);
    for (const { id } of c.live()) c.touch(c.gateways.get("g")!, id, 1);
    c.run(20_000);
    expect(counts(c)).toEqual([6, 0]);
  });
});
