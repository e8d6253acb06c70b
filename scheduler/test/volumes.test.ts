/** Where volumes lie, what becomes of them, and when they are backed up. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import {
  Availability,
  BackupPolicySchema,
  InstancesSchema,
  ReleaseSchema,
  VolumeChange,
  VolumeSchema,
} from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import type { HeldVolume } from "../src/core/model.ts";
import { Cluster } from "./cluster.ts";

const digest = `sha256:${"a".repeat(64)}`;
const source = { case: "release" as const, value: digest };
const minute = 60_000;

function volume(name = "data", everyMs = 10 * minute) {
  return create(VolumeSchema, {
    name,
    path: name,
    backup: create(BackupPolicySchema, { every: toDuration(everyMs), keep: 2 }),
  });
}

function site(nodes = 3, options: ConstructorParameters<typeof Cluster>[0] = {}): Cluster {
  const c = new Cluster({ nodes, ...options });
  c.addGateway("g");
  c.feed({ type: "release", release: create(ReleaseSchema, { digest, tenant: "a" }) });
  c.apply("a", { source, volumes: [volume()] });
  return c;
}

function started(c: Cluster): string {
  const call = c.ensure("a", 5_000);
  c.run(500);
  expect(c.granted(call).kind).toBe("ensured");
  return c.live().find(({ tenant }) => tenant === "a")!.node;
}

function stopped(c: Cluster): void {
  c.operation("stop", "a");
  c.run(8_000);
  expect(c.live().filter(({ tenant }) => tenant === "a")).toEqual([]);
}

const held = (c: Cluster, name = "data"): HeldVolume => c.core.state.volumes.get("a")!.get(name)!;
const contentOf = (c: Cluster): string[] => {
  const { id, node } = held(c).record;
  return c.nodes.get(node)!.volumes!.get(id)!;
};
const text = (c: Cluster): string => explain(c.core.state, c.config, "a", c.at())!;
const changes = (c: Cluster): VolumeChange[] =>
  c.events.flatMap(({ payload }) => (payload.case === "volume" ? [payload.value.change] : []));

function lose(c: Cluster, name: string): void {
  const node = c.nodes.get(name)!;
  node.reachable = false;
  node.alive = false;
  node.instances.clear();
  c.run(30_000);
}

const ask = {
  forget: (c: Cluster, node: string, loseVolumes = false) =>
    c.ask((call) => ({ type: "forget", call, node, force: true, loseVolumes })),
  backup: (c: Cluster) => c.ask((call) => ({ type: "backup-volume", call, tenant: "a", name: "data" })),
  remove: (c: Cluster, name = "data") =>
    c.ask((call) => ({ type: "remove-volume", call, tenant: "a", name })),
  restore: (c: Cluster, backup = "") =>
    c.ask((call) => ({ type: "restore-volume", call, tenant: "a", name: "data", backup })),
};

describe("where a tenant with a volume runs", () => {
  test("is the node on which it lies, over stops, deploys and new schedulers", () => {
    const c = site();
    const home = started(c);
    for (let n = 0; n < 3; n++) {
      stopped(c);
      if (n === 1) c.restartScheduler();
      c.run(1_000);
      expect(started(c)).toBe(home);
      c.apply("a", { source, volumes: [volume()], env: { N: `${n}` } });
      c.run(15_000);
      expect(c.live().map(({ node }) => node)).toEqual([home]);
    }
    expect(contentOf(c).length).toBeGreaterThanOrEqual(5);
    expect(text(c)).toContain(`Its volume data lies on node ${home}, and so the tenant runs nowhere else`);
  });

  test("is nowhere while that node is away: the reason is told, and no other begins with an empty one", () => {
    const c = site();
    const home = started(c);
    stopped(c);
    lose(c, home);
    const call = c.ensure("a", 2_000);
    c.run(3_000);
    expect(c.refused(call)).toMatchObject({ kind: "no-node" });
    expect(c.live().filter(({ node }) => node !== home)).toEqual([]);
    expect(text(c)).toContain(`Node ${home} does not report`);
    expect(text(c)).toContain(`'warren forget ${home}' gives the volume up, since there is no backup`);
  });

  test("may be another one as long as nothing was started there", () => {
    const c = site(1);
    c.behaviour.set("a", "refused");
    c.ensure("a", 1_000);
    c.run(1_500);
    expect(held(c).record).toMatchObject({ node: "n1", made: false });
    c.nodes.get("n1")!.reachable = false;
    c.addNode("n2");
    c.run(15_000);
    c.behaviour.set("a", "ready");
    expect(started(c)).toBe("n2");
  });

  test("one that could not even be mounted was never made: it need not exist at the next start", () => {
    const c = site();
    c.behaviour.set("a", "crashes"); // answered without a process
    c.ensure("a", 1_000);
    c.run(1_500);
    expect(held(c).record.made).toBe(false);
    for (const { volumes } of c.nodes.values()) volumes?.clear();
    c.behaviour.set("a", "ready");
    c.run(5_000);
    started(c);
    expect(held(c).record.made).toBe(true);
  });

  test("a volume that a later spec adds lies where the others lie", () => {
    const c = site();
    const home = started(c);
    c.apply("a", { source, volumes: [volume(), volume("more")] });
    c.run(15_000);
    expect(held(c, "more").record).toMatchObject({ node: home, made: true });
  });

  test("two never run at once, not even in a rollout", () => {
    const c = site();
    started(c);
    let most = 0;
    c.apply("a", { source, volumes: [volume()], env: { NEW: "1" } });
    for (let i = 0; i < 200; i++) {
      c.run(50);
      most = Math.max(most, c.live().filter(({ tenant }) => tenant === "a").length);
    }
    expect(most).toBe(1);
  });
});

test.each([
  [{ instances: create(InstancesSchema, { max: 2 }) }, "instances"],
  [{ availability: Availability.AT_LEAST_ONE }, "availability"],
])("a spec that contradicts its volumes is refused: %j", (more, field) => {
  const c = site();
  const call = c.apply("a", { source, volumes: [volume()], ...more });
  expect(c.refused(call)).toMatchObject({ kind: "bad-spec", field });
});

describe("backups", () => {
  test("are made when they are due, so many are kept, and none is made of what has not changed", () => {
    const c = site();
    started(c);
    c.run(11 * minute);
    expect(held(c).record.backups).toHaveLength(1);
    const first = held(c).record.backups[0]!;
    c.run(11 * minute);
    // As it was: the same one, as of now.
    expect(held(c).record.backups.map(({ id }) => id)).toEqual([first.id]);
    expect(held(c).record.backups[0]!.asOf!.seconds).toBeGreaterThan(first.asOf!.seconds);
    for (let n = 0; n < 3; n++) {
      stopped(c);
      started(c);
      c.run(11 * minute);
    }
    expect(held(c).record.backups).toHaveLength(2);
    expect(text(c)).toMatch(/backed up \d+ (s|min) ago/);
  });

  test("that fail are told once and tried again; whoever asked for one hears why", () => {
    const c = site();
    started(c);
    c.backupError = "the disk is full";
    const call = ask.backup(c);
    c.run(100);
    expect(c.refused(call)).toMatchObject({ kind: "volume", message: "the disk is full" });
    c.run(15 * minute);
    expect(changes(c).filter((change) => change === VolumeChange.BACKUP_FAILED)).toHaveLength(1);
    expect(text(c)).toContain("The last backup failed: the disk is full");
    c.backupError = undefined;
    c.run(2 * minute);
    expect(held(c).record.backups).toHaveLength(1);
    const again = ask.backup(c);
    c.run(100);
    expect(c.granted(again)).toMatchObject({ kind: "backup", unchanged: true });
  });

  test("a drain ends only when what lies on the node is backed up as its last instance left it", () => {
    const c = site();
    const home = started(c);
    const call = c.ask((call) => ({
      type: "drain",
      call,
      node: home,
      deadline: c.now + 60_000,
      until: c.now + 60_000,
    }));
    c.run(15_000);
    expect(c.granted(call)).toMatchObject({ kind: "drained", stopped: 1, unsaved: [] });
    expect(c.backups.get(held(c).record.backups[0]!.id)).toEqual(contentOf(c));
    // It waits there, and runs nowhere else.
    c.ensure("a", 1_000);
    c.run(2_000);
    expect(c.live()).toEqual([]);
  });
});

test("a drain says which volumes could not be backed up, and does not take an older backup for the last", () => {
  const c = site();
  const home = started(c);
  const earlier = ask.backup(c); // still under way when the drain begins
  c.backupError = "the store is full"; // from the next one on
  const call = c.ask((call) => ({
    type: "drain",
    call,
    node: home,
    deadline: c.now + 40_000,
    until: c.now + 30_000,
  }));
  c.run(100);
  expect(c.granted(earlier)).toMatchObject({ kind: "backup" });
  c.run(35_000);
  expect(c.granted(call)).toMatchObject({ kind: "drained", unsaved: ["a/data"] });
});

describe("a node that is gone for good", () => {
  test("gives its volumes back elsewhere from the newest backup, as old as is told", () => {
    const c = site();
    const home = started(c);
    const saved = [...contentOf(c)];
    ask.backup(c);
    c.run(100);
    stopped(c);
    started(c);
    c.run(5 * minute);
    lose(c, home);
    const forgotten = ask.forget(c, home);
    c.run(100);
    expect(c.granted(forgotten)).toMatchObject({
      kind: "forgotten",
      volumes: [{ tenant: "a", name: "data" }],
    });
    expect(text(c)).toMatch(
      /Its volume data has no place: the next start brings it back as it was \d+ min ago/,
    );
    const next = started(c);
    expect(next).not.toBe(home);
    expect(contentOf(c).slice(0, -1)).toEqual(saved);
    expect(held(c).record).toMatchObject({ made: true, restore: "" });
    expect(changes(c).slice(-2)).toEqual([VolumeChange.DISPLACED, VolumeChange.RESTORED]);
    expect(text(c)).toContain("It was restored as it was at");
    // The scheduler after this one knows it too.
    c.restartScheduler();
    c.run(2_000);
    expect(held(c).record.node).toBe(next);
  });

  test("is not forgotten while it holds what would be lost, but when that is said", () => {
    const c = site();
    const home = started(c);
    lose(c, home);
    const call = ask.forget(c, home);
    c.run(100);
    expect(c.refused(call)).toMatchObject({ kind: "loses-volumes", volumes: ["a/data"] });
    const sure = ask.forget(c, home, true);
    c.run(100);
    expect(c.granted(sure)).toMatchObject({ kind: "forgotten" });
    started(c);
    expect(contentOf(c)).toHaveLength(1);
  });

  test("a scheduler that dies between the forgetting and the start does not forget the backup", () => {
    const c = site();
    const home = started(c);
    const saved = [...contentOf(c)];
    ask.backup(c);
    c.run(100);
    lose(c, home);
    ask.forget(c, home);
    c.run(100);
    c.restartScheduler();
    c.run(2_000);
    started(c);
    expect(contentOf(c).slice(0, -1)).toEqual(saved);
  });
});

describe("by hand", () => {
  test("a volume is removed only when nothing has it; its tenant then begins with an empty one", () => {
    const c = site();
    const home = started(c);
    expect(c.refused(ask.remove(c))).toMatchObject({ kind: "volume" });
    expect(c.refused(ask.remove(c, "other"))).toMatchObject({ kind: "no-volume" });
    stopped(c);
    const { id } = held(c).record;
    const call = ask.remove(c);
    c.run(100);
    expect(c.granted(call).kind).toBe("done");
    expect(c.nodes.get(home)!.volumes!.has(id)).toBe(false);
    expect(c.core.state.volumes.size).toBe(0);
    started(c);
    expect(contentOf(c)).toHaveLength(1);
  });

  test("a start that comes while a volume is being removed waits for the end", () => {
    const c = site();
    started(c);
    stopped(c);
    const before = held(c).record.id;
    ask.remove(c);
    const call = c.ensure("a", 5_000);
    c.run(2_000);
    expect(c.granted(call).kind).toBe("ensured");
    expect(held(c).record.id).not.toBe(before);
  });

  test("a backup is restored at the next start; the copy there was stays, left over", () => {
    const c = site();
    started(c);
    const saved = [...contentOf(c)];
    ask.backup(c);
    c.run(100);
    const [first] = held(c).record.backups;
    expect(c.refused(ask.restore(c))).toMatchObject({ kind: "volume" }); // an instance has it
    stopped(c);
    started(c);
    stopped(c);
    const { id, node } = held(c).record;
    expect(c.refused(ask.restore(c, "01J00000000000000000009999"))).toMatchObject({ kind: "volume" });
    expect(c.granted(ask.restore(c, first!.id))).toMatchObject({ kind: "backup" });
    started(c);
    expect(contentOf(c).slice(0, -1)).toEqual(saved);
    expect(held(c).record.id).not.toBe(id);
    expect(c.nodes.get(node)!.volumes!.has(id)).toBe(true);
  });

  test("a tenant with volumes is deleted only if it is said what becomes of them", () => {
    const c = site();
    const home = started(c);
    const { id } = held(c).record;
    expect(c.refused(c.operation("delete", "a"))).toMatchObject({ kind: "has-volumes", names: ["data"] });
    const kept = c.ask((call) => ({
      type: "operation",
      call,
      kind: "delete",
      tenant: "a",
      deadline: c.now + 60_000,
      volumes: "keep",
    }));
    c.run(10_000);
    expect(c.granted(kept).kind).toBe("done");
    c.apply("a", { source, volumes: [volume()] });
    expect(started(c)).toBe(home);
    expect(contentOf(c)).toHaveLength(2);
    const removed = c.ask((call) => ({
      type: "operation",
      call,
      kind: "delete",
      tenant: "a",
      deadline: c.now + 60_000,
      volumes: "remove",
    }));
    c.run(10_000);
    expect(c.granted(removed).kind).toBe("done");
    expect(c.core.state.volumes.size).toBe(0);
    expect(c.nodes.get(home)!.volumes!.has(id)).toBe(false);
  });
});
