import { expect, test } from "bun:test";
import { seeded } from "@warren/common/testing/seeded";
import { pageOf } from "../src/services/page.ts";

test("pages hold all keys once, in order, whatever their order and the size of a page", () => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = seeded(seed);
  for (const [count, most] of [
    [0, 3],
    [3, 3],
    [4, 3],
    [500, 1],
    [500, 7],
    [500, 1_000],
  ] as const) {
    const keys = new Set(Array.from({ length: count }, () => `k${Math.floor(random() * 1e9)}`));
    const all: string[] = [];
    for (let after = ""; ; ) {
      const { page, more } = pageOf(keys, after, most);
      expect(page.length, `SEED=${seed}`).toBeLessThanOrEqual(most);
      all.push(...page);
      if (!more) break;
      after = page.at(-1)!;
    }
    expect(all, `SEED=${seed}`).toEqual([...keys].sort());
  }
});
