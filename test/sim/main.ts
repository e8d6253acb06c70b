/**
 * `make sim`: seeds one after the other, until as many STEPS are done or a rule is broken.
 *
 *     make sim STEPS=1000000            fresh seeds
 *     make sim SEED=7                   that seed
 *     make sim SEED=7 STEPS=1000000     that seed and those after it
 *     make sim SEED=7 KEEP=0-3,17       that seed with these of its items only, told line by line
 */
import { planOf } from "./plan.ts";
import { run } from "./run.ts";
import { keep } from "./shrink.ts";
import { fromRanges, story, Tally } from "./tell.ts";

const { SEED, STEPS, KEEP } = process.env;
const first = SEED ? whole("SEED", SEED) : Math.floor(Math.random() * 2 ** 31);
const most = STEPS ? whole("STEPS", STEPS) : SEED ? 1 : 1_000_000;

if (KEEP) {
  const result = run(keep(planOf(first), fromRanges(KEEP)), {
    onTrace: (at, line) => console.log(`${at.toFixed(1).padStart(10)}  ${line}`),
  });
  console.log(result.violation?.message ?? "violations: 0");
  process.exit(result.violation ? 1 : 0);
}

const tally = new Tally();
console.log(`from SEED=${first}`);
for (let seed = first; tally.steps < most; seed++) {
  const plan = planOf(seed);
  const result = run(plan);
  tally.add(result);
  if (!result.violation) continue;
  console.log(`${tally.lines()}\nviolations: 1\n\n${story(plan, result)}`);
  process.exit(1);
}
console.log(`${tally.lines()}\nviolations: 0`);

function whole(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    console.error(`${name}=${text} must be a whole number from 1`);
    process.exit(2);
  }
  return value;
}
