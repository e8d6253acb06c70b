import { expect, test } from "bun:test";
import { type CollectBounds, type StoredRelease, surplus } from "../src/core/collect.ts";
import { Holds } from "../src/holds.ts";

const minute = 60_000;
const now = 1_000 * minute;
const bounds: CollectBounds = { count: 2, bytes: 1_000, graceMs: 60 * minute };

/** Releases of a tenant, the oldest first, an hour apart; the last one came two hours ago. */
function history(tenant: string, n: number, bytes = 10): StoredRelease[] {
  return Array.from({ length: n }, (_, i) => ({
    digest: `${tenant}${i}`,
    tenant,
    bytes,
    createdAt: now - (n - i + 1) * 60 * minute,
  }));
}

const gone = (
  releases: readonly StoredRelease[],
  named: readonly string[],
  more: Partial<CollectBounds> = {},
  exists: (tenant: string) => boolean = () => true,
) => surplus(releases, new Set(named), exists, { ...bounds, ...more }, now);

test("kept are the one that is named and the newest others; the oldest goes first", () => {
  expect(gone(history("a", 5), ["a4"])).toEqual(["a0", "a1"]);
  expect(gone([...history("a", 5), ...history("b", 2)], ["a4", "b1"])).toEqual(["a0", "a1"]);
  // After a rollback those that came later are the newest others.
  expect(gone(history("a", 5), ["a0"])).toEqual(["a1", "a2"]);
  expect(gone(history("a", 3), ["a2"])).toEqual([]);
});

test("what is named is kept whoever's it is, and however many there are", () => {
  const many = history("a", 8);
  expect(
    gone(
      many,
      many.map(({ digest }) => digest),
    ),
  ).toEqual([]);
  // By the spec of another tenant, too, and though its own is gone.
  expect(gone(history("a", 3), ["a0"], {}, (tenant) => tenant === "b")).toEqual(["a1", "a2"]);
});

test("of a tenant that was deleted nothing is kept, once nothing names it", () => {
  expect(gone(history("a", 3), [], {}, () => false)).toEqual(["a0", "a1", "a2"]);
});

test("what came within the grace is kept, and takes no place of others", () => {
  const young = { digest: "young", tenant: "a", bytes: 10, createdAt: now - 59 * minute };
  const future = { ...young, digest: "future", createdAt: now + minute };
  expect(gone([...history("a", 3), young, future], [])).toEqual(["a0"]);
  expect(gone([{ ...young, tenant: "deleted" }], [], {}, () => false)).toEqual([]);
  expect(gone([...history("a", 2), { ...young, createdAt: now - 60 * minute }], [])).toEqual(["a0"]);
});

test("a tenant's bytes are bounded: what is named counts, and is kept beyond", () => {
  expect(gone(history("a", 4, 400), ["a3"])).toEqual(["a0", "a1"]);
  expect(gone(history("a", 4, 400), ["a3"], { bytes: 400 })).toEqual(["a0", "a1", "a2"]);
  expect(gone(history("a", 1, 4_000), ["a0"])).toEqual([]);
  // Not a hole: what is older than one that does not fit goes with it.
  const mixed = [10, 2_000, 10].map((bytes, i) => ({ ...history("a", 3)[i]!, bytes }));
  expect(gone(mixed, [], { count: 3 })).toEqual(["a0", "a1"]);
});

test("a hold lasts its time, and is renewed", () => {
  let at = 0;
  const holds = new Holds(100, () => at);
  holds.hold("x");
  at = 60;
  holds.hold("x");
  holds.hold("y");
  at = 120;
  expect([holds.isHeld("x"), holds.isHeld("y"), holds.isHeld("z")]).toEqual([true, true, false]);
  at = 160;
  expect(holds.isHeld("x")).toBe(false);
});

test("who brings a release while it is being removed waits until it is gone", async () => {
  const holds = new Holds(100, () => 0);
  const steps: string[] = [];
  const removed = Promise.withResolvers<void>();
  const leaving = holds.leave("x", async () => {
    await removed.promise;
    steps.push("removed");
  });
  const arriving = holds.arrive("x").then(() => steps.push("stored"));
  await holds.arrive("y");
  expect(steps).toEqual([]);
  removed.resolve();
  await Promise.all([leaving, arriving]);
  expect(steps).toEqual(["removed", "stored"]);
  // One that fails keeps nobody waiting either.
  const failing = holds.leave("x", () => Promise.reject(new Error("the store is away")));
  await holds.arrive("x");
  expect(failing).rejects.toThrow("away");
});
