/**
 * Makes a failing history small: items are left out, first many at once and then one by one, as long as the same rule is
 * still broken. What one item draws by chance does not depend on another, mostly; so what is left is the story.
 */
import type { Plan } from "./plan.ts";
import { type Result, type RunOptions, run } from "./run.ts";

export interface Shrunk {
  /** Which of the plan's items are left. */
  readonly kept: readonly number[];
  readonly result: Result;
  readonly tries: number;
}

/** The plan with these of its items only. */
export function keep(plan: Plan, kept: readonly number[]): Plan {
  return { ...plan, items: kept.map((i) => plan.items[i]!) };
}

/** @param budgetMs real time; what was found by then is answered */
export function shrink(plan: Plan, failed: Result, options: RunOptions = {}, budgetMs = 30_000): Shrunk {
  const until = performance.now() + budgetMs;
  const rule = failed.violation?.rule;
  // What came after cannot have caused it.
  let kept = plan.items.flatMap(({ at }, i) => (at <= failed.virtualMs ? [i] : []));
  let best = failed;
  let tries = 0;
  const stillFails = (candidate: readonly number[]): boolean => {
    tries++;
    const result = run(keep(plan, candidate), options);
    if (result.violation?.rule !== rule) return false;
    best = result;
    kept = candidate.filter((i) => plan.items[i]!.at <= result.virtualMs);
    return true;
  };
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let from = kept.length - size; from > -size && performance.now() < until; from -= size) {
      const start = Math.max(0, Math.min(from, kept.length));
      stillFails([...kept.slice(0, start), ...kept.slice(start + size)]);
    }
  }
  return { kept, result: best, tries };
}
