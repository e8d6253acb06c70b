/** The checker can fail: every way in which the core is broken on purpose is caught. */
import { describe, expect, test } from "bun:test";
import { mutants } from "./mutants.ts";
import { mutate } from "./mutate.ts";
import { planOf } from "./plan.ts";
import { run } from "./run.ts";
import { shrink } from "./shrink.ts";

/** Tried for one mutant. */
const mostSteps = 400_000;

describe("mutants", () => {
  test("there are at least six, and each has a name of its own", () => {
    expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
    expect(mutants.length).toBeGreaterThanOrEqual(6);
  });

  test.each(mutants)("caught: $name ($breaks)", async (mutant) => {
    using mutated = await mutate(mutant);
    let steps = 0;
    for (let seed = 1; steps < mostSteps; seed++) {
      const { violation, steps: taken } = run(planOf(seed), { makeCore: mutated.makeCore });
      steps += taken;
      if (!violation) continue;
      console.log(
        `mutant "${mutant.name}": caught by SEED=${seed} after ${steps} steps: ${violation.message}`,
      );
      return;
    }
    throw new Error(`not caught within ${steps} steps`);
  });

  test("one whose text is not there is refused", async () => {
    const gone = { name: "x", breaks: "x", file: "queue.ts", old: "no such text", new: "" };
    expect(mutate(gone)).rejects.toThrow("0 times");
  });

  test("a failing history is shrunk to what it takes", async () => {
    using mutated = await mutate(mutants[0]!);
    const options = { makeCore: mutated.makeCore };
    const plan = planOf(1);
    const failed = run(plan, options);
    expect(failed.violation?.rule).toBe("rule 1");
    const { kept, result } = shrink(plan, failed, options);
    expect(result.violation?.rule).toBe("rule 1");
    expect(kept.length).toBeLessThan(plan.items.length / 4);
  });
});
