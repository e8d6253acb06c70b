/** Stop, Restart and Delete, in the middle of something. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstancesSchema } from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

/** "a" with several slots and one busy instance. */
function oneBusy(): Cluster {
  const c = new Cluster();
  const g = c.addGateway("g");
  c.apply("a", { instances: create(InstancesSchema, { max: 3 }) });
  c.ensure("a");
  c.run(200);
  c.touch(g, c.live()[0]!.id, 1);
  return c;
}

test("rule 4: a stop is answered, though somebody asks for the tenant while it drains", () => {
  const c = oneBusy();
  const stop = c.operation("stop", "a", 20_000);
  const ensure = c.ensure("a", 20_000);
  c.run(15_000);
  expect(c.granted(stop)).toMatchObject({ kind: "stopped", stopped: [{ tenant: "a" }] });
  expect(c.granted(ensure).kind).toBe("ensured");
});

test("rule 4: whoever asks for a tenant whose stop is late is not forgotten", () => {
  const c = oneBusy();
  c.nodes.get("n1")!.reachable = false;
  const stop = c.operation("stop", "a", 7_000);
  c.addNode("n2");
  const ensure = c.ensure("a", 20_000);
  c.run(9_000);
  expect(c.refused(stop).kind).toBe("deadline");
  expect(c.granted(ensure).kind).toBe("ensured");
});
