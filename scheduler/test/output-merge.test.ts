/** Output of several instances as one stream: by invariant O1 to O3 of output/merge.ts. */
import { describe, expect, test } from "bun:test";
import { seeded } from "@warren/common/testing/seeded";
import { Merge, type Merged } from "../src/output/merge.ts";

const bounds = { tail: 100, pastBytes: 1_000_000, holdMs: 200 };
const line = (source: string, at: number, text = `${source}${at}`, bytes = 10): Merged<string> => ({
  source,
  at,
  bytes,
  line: text,
});

describe("the past", () => {
  test("of one instance is told as it comes", () => {
    const merge = new Merge<string>(bounds);
    merge.add("a");
    merge.push([line("a", 2), line("a", 1)], 0);
    expect(merge.take(0).lines).toEqual(["a2", "a1"]);
  });

  test("of several is told once all have told theirs, the last lines of all together", () => {
    const merge = new Merge<string>({ ...bounds, tail: 3 });
    for (const source of ["a", "b", "c"]) merge.add(source);
    merge.push([line("a", 1), line("a", 4), line("a", 6)], 0);
    merge.caughtUp("a");
    expect(merge.take(1_000).lines).toEqual([]);
    merge.push([line("b", 2), line("b", 5)], 10);
    merge.caughtUp("b");
    merge.end("c");
    expect(merge.take(1_000).lines).toEqual(["a4", "b5", "a6"]);
  });

  test("with a tail of 0 is not told, and what is new then is", () => {
    const merge = new Merge<string>({ ...bounds, tail: 0 });
    merge.add("a");
    merge.add("b");
    for (const source of ["a", "b"]) merge.caughtUp(source);
    expect(merge.take(0).lines).toEqual([]);
    merge.push([line("a", 1)], 0);
    expect(merge.take(300).lines).toEqual(["a1"]);
  });

  test("rule 9: over its bound in bytes the oldest lines are left out, and counted", () => {
    const merge = new Merge<string>({ ...bounds, pastBytes: 50 });
    merge.add("a");
    merge.add("b");
    merge.push(
      [1, 3, 5, 7].map((at) => line("a", at)),
      0,
    );
    merge.push(
      [2, 4, 6, 8].map((at) => line("b", at)),
      0,
    );
    merge.caughtUp("a");
    merge.caughtUp("b");
    expect(merge.take(0)).toEqual({ lines: ["b4", "a5", "b6", "a7", "b8"], leftOut: 3 });
  });

  test("rule 9: however much comes, twice the tail is held at most", () => {
    const merge = new Merge<string>({ ...bounds, tail: 10 });
    merge.add("a");
    merge.add("b");
    for (let at = 0; at < 1_000; at++) {
      merge.push([line("a", at), line("b", at)], 0);
      expect(merge.held).toBeLessThanOrEqual(22);
    }
    merge.caughtUp("a");
    merge.caughtUp("b");
    const { lines, leftOut } = merge.take(0);
    expect(lines).toEqual([995, 996, 997, 998, 999].flatMap((at) => [`a${at}`, `b${at}`]));
    expect(leftOut).toBe(0);
  });
});

describe("what is new", () => {
  function live(): Merge<string> {
    const merge = new Merge<string>(bounds);
    for (const source of ["a", "b"]) merge.add(source);
    for (const source of ["a", "b"]) merge.caughtUp(source);
    merge.take(0);
    return merge;
  }

  test("is held for older lines of others to come, and told at once where there are no others", () => {
    const merge = live();
    merge.push([line("b", 20)], 1_000);
    expect(merge.dueIn(1_050)).toBe(150);
    merge.push([line("a", 10)], 1_100);
    expect(merge.take(1_150).lines).toEqual([]);
    // The older one comes with it, although it has not been held so long itself.
    expect(merge.take(1_200).lines).toEqual(["a10", "b20"]);
    expect(merge.dueIn(1_200)).toBeUndefined();
    merge.end("b");
    merge.push([line("a", 30)], 1_300);
    expect(merge.dueIn(1_300)).toBe(0);
    expect(merge.take(1_300).lines).toEqual(["a30"]);
  });

  test("of an instance whose clock was put back stays in its order", () => {
    const merge = live();
    merge.push([line("a", 100), line("a", 50), line("b", 60)], 0);
    expect(merge.take(1_000).lines).toEqual(["b60", "a100", "a50"]);
  });

  test("O1, nothing lost or doubled: whatever comes from whom and when", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = seeded(seed);
      const merge = new Merge<string>({ ...bounds, tail: 1_000 });
      const names = ["a", "b", "c"];
      for (const name of names) merge.add(name);
      const sent: Record<string, string[]> = { a: [], b: [], c: [] };
      const told: string[] = [];
      let now = 0;
      for (let step = 0; step < 200; step++) {
        now += Math.floor(random() * 60);
        const name = names[Math.floor(random() * 3)]!;
        if (step > 20) merge.caughtUp(name);
        const text = `${name}-${step}`;
        sent[name]!.push(text);
        merge.push([line(name, now - Math.floor(random() * 100), text)], now);
        told.push(...merge.take(now).lines);
      }
      for (const name of names) merge.end(name);
      told.push(...merge.take(now).lines);
      expect(told).toHaveLength(200);
      for (const name of names) {
        expect({ seed, told: told.filter((text) => text.startsWith(name)) }).toEqual({
          seed,
          told: sent[name]!,
        });
      }
    }
  });
});
