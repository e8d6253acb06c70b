/** Specs that are applied, rejected and asked for again, at once or with a new leader in between. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { LimitsSchema, type TenantSpec } from "@warren/proto/common";
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

test("an edit that names the version it saw is refused once another was applied, or is on its way", () => {
  const c = oneReady();
  const { spec, version } = tenant(c).newest;
  const edit = (expected: number, value: string) =>
    c.ask((call) => ({ type: "apply", call, spec: { ...spec, env: { v: value } }, expected }));
  const [first, second] = [edit(version, "2"), edit(version, "3")];
  c.run(5_000);
  expect(c.granted(first).kind).toBe("done");
  expect(c.refused(second)).toEqual({
    kind: "changed",
    tenant: "a",
    expected: version,
    version: version + 1,
  });
  expect(tenant(c).newest.spec.env).toEqual({ v: "2" });
  // Its answer was lost, and it is made again.
  const again = edit(version, "2");
  c.run(100);
  expect(c.granted(again).kind).toBe("done");
  const third = edit(version + 1, "3");
  c.run(5_000);
  expect(c.granted(third).kind).toBe("done");
  const nobody = c.ask((call) => ({ type: "apply", call, spec: { ...spec, key: "b" }, expected: 1 }));
  expect(c.refused(nobody)).toMatchObject({ kind: "changed", version: 0 });
});

test("an edit that the store did not take stands in nobody's way", () => {
  const c = oneReady();
  const { spec, version } = tenant(c).newest;
  const edit = (value: string) =>
    c.ask((call) => ({ type: "apply", call, spec: { ...spec, env: { v: value } }, expected: version }));
  c.storeUp = false;
  const lost = edit("2");
  c.run(15_000);
  expect(c.refused(lost).kind).toBe("store-down");
  c.storeUp = true;
  const made = edit("3");
  c.run(5_000);
  expect(c.granted(made).kind).toBe("done");
  expect(tenant(c).newest.spec.env).toEqual({ v: "3" });
});

test.each([[{ limits: create(LimitsSchema, { memoryBytes: 1024n }) }, "limits.memory_bytes"]] as const)(
  "a spec that cannot be meant is refused by the field: %#",
  (more, field) => {
    const c = new Cluster();
    expect(c.refused(c.apply("a", more))).toMatchObject({ kind: "bad-spec", field });
  },
);
