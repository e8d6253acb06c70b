/** Deploying to a live tenant, reload and rollback: each instance goes only once its successor is ready. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstancesSchema, ReloadPolicySchema, RolloutState } from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import { atMostOne, Cluster } from "./cluster.ts";

const env = (version: string, more = {}) => ({ env: { VERSION: version }, ...more });
const three = { instances: create(InstancesSchema, { min: 3, max: 3 }) };

function warm(
  spec: Parameters<Cluster["apply"]>[1],
  options: ConstructorParameters<typeof Cluster>[0] = { nodes: 2 },
) {
  const c = new Cluster(options);
  c.addGateway("g");
  c.apply("a", spec);
  c.ensure("a");
  c.run(500);
  return c;
}

const versions = (c: Cluster) =>
  c
    .live()
    .map(({ specVersion }) => Number(specVersion))
    .sort();
const rollout = (c: Cluster) => c.core.state.tenants.get("a")!.rollout;

/** Lets time pass, and sees that at every moment somebody serves. */
function runServed(c: Cluster, ms: number, least = 1): void {
  for (let i = 0; i < ms; i += 5) {
    c.run(5);
    const ready = [...c.core.state.instances.values()].filter(({ phase }) => phase.kind === "ready").length;
    expect(ready).toBeGreaterThanOrEqual(least);
  }
}

describe("a new spec for a live tenant", () => {
  test("replaces its instances one at a time, each once its successor is ready", () => {
    const c = warm(env("1", three));
    expect(versions(c)).toEqual([1, 1, 1]);
    c.apply("a", env("2", three));
    let most = 0;
    for (let i = 0; i < 400; i++) {
      runServed(c, 5, 3);
      most = Math.max(most, c.live().length);
    }
    expect(versions(c)).toEqual([2, 2, 2]);
    expect(most).toBeLessThanOrEqual(4 + 1); // one more, and the one before may still be stopping
    expect(rollout(c)).toMatchObject({ state: RolloutState.DONE, replaced: 3, total: 3 });
    expect(c.core.state.counts.exits_replaced).toBe(3);
    expect(c.core.state.moves.size + c.core.state.successors.size).toBe(0);
  });

  test("that is the same changes nothing; one of policy only holds at once and replaces nothing", () => {
    const c = warm(env("1"));
    const ref = c.live()[0]!;
    c.apply("a", env("1"));
    c.apply("a", env("1", { priority: 7 }));
    c.run(1_000);
    expect(c.live().map(({ id }) => id)).toEqual([ref.id]);
    expect(c.core.state.tenants.get("a")!.newest).toMatchObject({
      version: 2,
      since: 1,
      spec: { priority: 7 },
    });
  });

  test("that does not become ready is rolled back: those replaced are given back, the others are left alone", () => {
    const c = warm(env("1", three));
    const before = c.live();
    let starts = 0;
    c.onStart = (tenant) => (tenant === "a" && ++starts === 2 ? "crashes" : "ready");
    c.apply("a", env("2", three));
    runServed(c, 3_000, 2);
    expect(versions(c)).toEqual([1, 1, 1]);
    expect(rollout(c)).toMatchObject({ state: RolloutState.ROLLED_BACK });
    // It is told which one did not become ready: its output says why.
    const ended = c.events.flatMap(({ payload }) => (payload.case === "rollout" ? [payload.value] : []));
    const { failedInstance } = ended.at(-1)!.rollout!;
    expect(failedInstance).toMatch(/^01J/);
    expect(before.map(({ id }) => id)).not.toContain(failedInstance);
    expect(c.live().map(({ id }) => id)).not.toContain(failedInstance);
    expect(c.live().filter(({ id }) => before.some((old) => old.id === id))).toHaveLength(2);
    // Nothing of that is the tenant's own failing, and new instances are of the version that serves.
    expect(c.core.state.tenants.get("a")).toMatchObject({ failures: 0, rejected: true });
    expect(explain(c.core.state, c.config, "a", c.at())).toContain("was rolled back");
    c.crash(c.live()[0]!.id);
    c.run(500);
    expect(versions(c)).toEqual([1, 1, 1]);
  });

  test("broken from the start: the old one never stops serving, and a new leader knows it was rejected", () => {
    const c = warm(env("1"));
    const ref = c.live()[0]!;
    c.behaviour.set("a", "crashes");
    c.apply("a", env("2"));
    runServed(c, 2_000);
    expect(c.live().map(({ id }) => id)).toEqual([ref.id]);
    c.behaviour.delete("a");
    c.restartScheduler();
    c.run(2_000);
    expect(c.live().map(({ id }) => id)).toEqual([ref.id]);
    // Tried again on demand, now that it works.
    c.apply("a", env("2"));
    runServed(c, 2_000);
    expect(versions(c)).toEqual([3]);
  });

  test("applied twice in a row: the later one counts, whatever the earlier was about to do", () => {
    const c = warm(env("1", three));
    c.apply("a", env("2", three));
    c.run(15);
    c.apply("a", env("3", three));
    c.run(3_000);
    expect(versions(c)).toEqual([3, 3, 3]);
    expect(c.core.state.moves.size + c.core.state.successors.size).toBe(0);
  });

  test("of a cold tenant starts nothing", () => {
    const c = new Cluster();
    c.apply("a", env("1"));
    c.apply("a", env("2"));
    c.run(1_000);
    expect(c.live()).toEqual([]);
  });
});

describe("Reload", () => {
  test("answers when all are new", () => {
    const c = warm(env("1", three));
    const before = c.live().map(({ id }) => id);
    const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline: c.now + 30_000 }));
    runServed(c, 2_000, 3);
    const answer = c.granted(call);
    expect(answer.kind === "reloaded" && answer.instances).toHaveLength(3);
    expect(c.live().some(({ id }) => before.includes(id))).toBe(false);
  });

  test("rule 4: of what does not become ready is refused with how it ended", () => {
    const c = warm(env("1"));
    const ref = c.live()[0]!;
    c.behaviour.set("a", "crashes");
    const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline: c.now + 30_000 }));
    runServed(c, 1_000);
    expect(c.refused(call)).toMatchObject({ kind: "rolled-back", exit: { reason: 1 } });
    expect(c.live().map(({ id }) => id)).toEqual([ref.id]);
  });

  test("rule 4: one that takes too long is told so, and goes on", () => {
    const c = warm(env("1"));
    c.behaviour.set("a", "hangs");
    const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline: c.now + 1_000 }));
    runServed(c, 2_000);
    expect(c.refused(call).kind).toBe("deadline");
  });

  test("rule 1: at the cap there is no place for a second one: refused, unless the spec lets the old one go first", () => {
    const c = warm(env("1"), { nodes: 1, config: { maxConcurrent: 1, moveMs: 2_000 } });
    const ref = c.live()[0]!;
    const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline: c.now + 30_000 }));
    runServed(c, 4_000);
    expect(c.refused(call)).toMatchObject({ kind: "rolled-back" });
    expect(c.live().map(({ id }) => id)).toEqual([ref.id]);
    c.apply("a", env("2", { reload: create(ReloadPolicySchema, { stopFirst: true }) }));
    c.run(8_000);
    expect(versions(c)).toEqual([2]);
  });

  test("rule 2: of at-most-one the old one goes first; if the new one fails, the old version is back", () => {
    const c = warm(env("1", atMostOne));
    c.apply("a", env("2", atMostOne));
    c.run(8_000);
    expect(versions(c)).toEqual([2]);
    c.onStart = () => (c.core.state.tenants.get("a")!.rejected ? "ready" : "crashes");
    c.apply("a", env("3", atMostOne));
    c.run(10_000);
    expect(versions(c)).toEqual([2]);
  });
});

test("rule 4: stopped meanwhile, its callers are told, nothing is started again, and the next use is of the newest", () => {
  const c = warm(env("1"));
  c.behaviour.set("a", "hangs");
  c.apply("a", env("2"));
  c.run(50);
  const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline: c.now + 30_000 }));
  c.operation("stop", "a");
  c.run(20_000);
  expect(c.refused(call)).toMatchObject({ kind: "rolled-back" });
  expect(c.live()).toEqual([]);
  expect(c.core.state.moves.size + c.core.state.successors.size).toBe(0);
  c.behaviour.delete("a");
  c.ensure("a");
  c.run(500);
  expect(versions(c)).toEqual([2]);
});

test("without a place for a successor nothing is rejected: it goes on when there is one", () => {
  const c = warm(env("1"), { nodes: 1, config: { moveMs: 2_000 } });
  c.core.state.nodes.get("n1")!.cordoned = true;
  c.apply("a", env("2"));
  runServed(c, 3_000);
  expect(rollout(c)).toMatchObject({ state: RolloutState.ROLLED_BACK });
  expect(c.core.state.tenants.get("a")!.rejected).toBe(false);
  c.ask((call) => ({ type: "cordon", call, node: "n1", cordoned: false }));
  runServed(c, 5_000);
  expect(versions(c)).toEqual([2]);
});

test("a new leader goes on with what the one before had begun", () => {
  const c = warm(env("1", three));
  c.apply("a", env("2", three));
  c.run(30);
  c.restartScheduler();
  runServed(c, 10, 0);
  c.run(5_000);
  expect(versions(c)).toEqual([2, 2, 2]);
});
