/** Rule 9: what waits has a bound, and so has what is tried again. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstancesSchema } from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

test("rule 9: calls that wait for a reload or for a drain are bounded", () => {
  const c = new Cluster({ config: { maxWaitingPerTenant: 3 } });
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.behaviour.set("a", "hangs");
  const deadline = c.now + 60_000;
  const reloads = [1, 2, 3, 4].map(() => c.ask((call) => ({ type: "reload", call, tenant: "a", deadline })));
  const drains = [1, 2, 3, 4].map(() =>
    c.ask((call) => ({ type: "drain", call, node: "n1", deadline, until: deadline })),
  );
  for (const calls of [reloads, drains]) {
    expect(c.refused(calls[3]!)).toMatchObject({ kind: "too-many", limit: 3 });
    for (const call of calls.slice(0, 3)) expect(c.outcomes.has(call)).toBe(false);
  }
});

test("rule 9: a store that takes nothing is not asked in a circle, and is asked again", () => {
  const c = new Cluster();
  c.apply("a", { instances: create(InstancesSchema, { min: 1 }) });
  c.run(200);
  c.storeUp = false;
  const placed = c.core.state.placements;
  c.crash(c.live()[0]!.id);
  c.run(5_000);
  expect(c.core.state.placements - placed).toBeLessThanOrEqual(11);
  c.storeUp = true;
  c.run(1_000);
  expect(c.live()).toHaveLength(1);
});
