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

test("of two specs applied at once the later one counts, in what runs as well", () => {
  const c = oneReady();
  const { spec } = tenant(c).newest;
  const apply = (more: Partial<TenantSpec>) =>
    c.ask((call) => ({ type: "apply", call, spec: { ...spec, ...more } }));
  const calls = [apply({ env: { v: "2" } }), apply({ priority: 5 })];
  c.run(5_000);
  for (const call of calls) expect(c.granted(call).kind).toBe("done");
  expect(tenant(c).newest.spec).toMatchObject({ env: { v: "1" }, priority: 5 });
  const [ref] = c.live();
  expect(Number(ref!.specVersion)).toBe(tenant(c).newest.version);
});

test("a spec that is applied and taken back at once is taken back", () => {
  const c = oneReady();
  const { spec } = tenant(c).newest;
  for (const v of ["2", "1"]) c.ask((call) => ({ type: "apply", call, spec: { ...spec, env: { v } } }));
  c.run(1_000);
  expect(tenant(c).newest.spec.env).toEqual({ v: "1" });
});

test("a spec that was acknowledged is not lost to the rejection of the one before it", () => {
  const c = oneReady();
  const [old] = c.live();
  const { spec } = tenant(c).newest;
  const apply = (v: string) => c.ask((call) => ({ type: "apply", call, spec: { ...spec, env: { v } } }));
  c.behaviour.set("a", "hangs");
  apply("2");
  while (c.live().length < 2) c.run(1);
  const call = apply("3"); // on its way to the store when the one before it fails
  c.crash(c.live().find(({ id }) => id !== old!.id)!.id);
  c.run(100);
  expect(c.granted(call).kind).toBe("done");
  c.restartScheduler();
  expect(tenant(c).newest.spec.env).toEqual({ v: "3" });
});
