/** Where tenants are reached, and what is refused because it could not be. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { IdlePolicySchema, ReadinessKind, ReadinessSchema } from "@warren/proto/common";
import { hostNameOf, urlOf } from "../src/core/addresses.ts";
import { instanceView } from "../src/services/views.ts";
import { Cluster } from "./cluster.ts";

const readiness = create(ReadinessSchema, { kind: ReadinessKind.NONE });

test("a tenant's URL and host name are as its gateways say, and one that serves no HTTP has no URL", () => {
  const c = new Cluster();
  c.apply("web");
  c.apply("worker", { readiness });
  expect(urlOf(c.core.state, "web")).toBe("");
  expect(hostNameOf(c.core.state, "web")).toBe("");
  c.addGateway("g");
  expect(urlOf(c.core.state, "web")).toBe("http://web.localhost");
  expect(hostNameOf(c.core.state, "web")).toBe("web.localhost");
  expect(urlOf(c.core.state, "worker")).toBe("");
});

test("nothing is shown to answer where no HTTP is served", () => {
  const c = new Cluster();
  for (const [key, spec] of [
    ["web", {}],
    ["worker", { readiness }],
  ] as const) {
    c.apply(key, spec);
    c.ensure(key);
  }
  c.run(1_000);
  const { state } = c.core;
  const shown = [...state.instances.values()].map((instance) => {
    const { ref, endpoint } = instanceView(state, c.config, instance, { mono: c.now, wall: c.now });
    return [ref?.tenant, endpoint !== undefined];
  });
  expect(shown.sort()).toEqual([
    ["web", true],
    ["worker", false],
  ]);
});

test("a spec that contradicts itself is refused by its field", () => {
  const c = new Cluster();
  const odd = { readiness, idle: create(IdlePolicySchema, { freezeAfter: toDuration(1_000) }) };
  expect(c.refused(c.apply("worker", odd))).toMatchObject({ kind: "bad-spec", field: "idle.freeze_after" });
});
