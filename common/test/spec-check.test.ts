import { describe, expect, test } from "bun:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ReadinessKind, TenantSpecSchema } from "@warren/proto/common";
import { servesHttp, specProblem } from "../src/spec-check.ts";
import { toDuration } from "../src/time.ts";

const minute = toDuration(60_000);
const none = { readiness: { kind: ReadinessKind.NONE } };
type Spec = Omit<MessageInitShape<typeof TenantSpecSchema>, "$typeName">;
test("a name that the agent sets itself is refused by its name", () => {
  const spec = create(TenantSpecSchema, { key: "x", env: { A: "1", WARREN_NODE: "n9" } });
  expect(specProblem(spec)).toMatchObject({ field: "env", message: expect.stringContaining("WARREN_NODE") });
});

const of = (spec: Spec) => specProblem(create(TenantSpecSchema, { key: "x", ...spec }))?.field;

describe("a spec that contradicts itself is refused by the field", () => {
  test.each<[string, Spec]>([
    ["idle.freeze_after", { ...none, idle: { freezeAfter: minute } }],
    ["idle.stop_after", { ...none, idle: { stopAfter: minute } }],
    ["idle.page_out_after", { ...none, idle: { pageOutAfter: minute } }],
    ["idle.adaptive", { ...none, idle: { adaptive: true } }],
    ["idle.stop_after", { idle: { keepWarm: true, stopAfter: minute } }],
    ["idle.adaptive", { idle: { keepWarm: true, adaptive: true } }],
    ["idle.freeze_after", { idle: { neverFreeze: true, freezeAfter: minute } }],
    ["idle.page_out_after", { idle: { neverFreeze: true, pageOutAfter: minute } }],
    ["liveness.path", { ...none, liveness: { path: "/healthz" } }],
    ["instances.target_concurrency", { ...none, instances: { targetConcurrency: 5 } }],
  ])("%s", (field, spec) => {
    expect(of(spec)).toBe(field);
  });

  test("what goes together is not", () => {
    const specs: Spec[] = [
      {},
      { ...none, instances: { min: 2 }, idle: { keepWarm: true, neverFreeze: true } },
      { ...none, liveness: { heartbeat: minute } },
      { idle: { neverFreeze: true, stopAfter: minute, adaptive: true } },
      { idle: { freezeAfter: minute, pageOutAfter: minute, stopAfter: minute } },
      { readiness: { kind: ReadinessKind.MESSAGE }, idle: { freezeAfter: minute } },
      { instances: { min: 2 } },
      { instances: { min: 2, max: 2 } },
    ];
    for (const spec of specs) expect(of(spec)).toBeUndefined();
  });
});

test("only readiness none says that no HTTP is served", () => {
  expect(servesHttp(undefined)).toBe(true);
  expect(servesHttp(create(TenantSpecSchema, { key: "x", ...none }))).toBe(false);
  expect(servesHttp(create(TenantSpecSchema, { key: "x", readiness: { kind: ReadinessKind.MESSAGE } }))).toBe(
    true,
  );
});
