/** Specs that are applied, rejected and asked for again, at once or with a new leader in between. */
import { expect, test } from "bun:test";
import type { TenantSpec } from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

function oneReady(): Cluster {
  const c = new Cluster();
  c.apply("a", { env: { v: "1" } });
  c.ensure("a");
  c.run(200);
  return c;
}

const tenant = (c: Cluster) => c.core.state.tenants.get("a")!;

test("what was rejected and is reloaded with success serves under a new leader, too", () => {
  const c = oneReady();
  c.behaviour.set("a", "crashes");
  c.apply("a", { env: { v: "2" } });
  c.run(2_000);
  expect(tenant(c).rejected).toBe(true);
  c.behaviour.delete("a");
  const deadline = c.now + 60_000;
  const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline }));
  c.run(2_000);
  expect(c.granted(call).kind).toBe("reloaded");
  c.restartScheduler();
  c.run(2_000);
  expect(tenant(c).rejected).toBe(false);
});
