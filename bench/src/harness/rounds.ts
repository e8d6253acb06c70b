/** Things measured side by side: one of each per round, so that what the machine does meanwhile meets all alike. */
import { pause } from "@warren/common/time";

/** One way to do it. Answers its figures by name, in ms. */
export type Arm = () => Promise<Readonly<Record<string, number>>>;

export interface RoundsOptions {
  readonly rounds: number;
  /** Not counted: files and caches get warm. */
  readonly warmups: number;
  /** After so long no further round is begun, ms; the number of values shows how many there were. */
  readonly budgetMs: number;
  readonly signal: AbortSignal;
}

/** Between two measurements, for what the one before left to be cleaned up; ms. */
const restMs = 5;

/** Every arm's figures, one value a round. The arms' order is another in each round. */
export async function interleave<A extends string>(
  arms: Readonly<Record<A, Arm>>,
  options: RoundsOptions,
): Promise<Record<A, Record<string, number[]>>> {
  const names = Object.keys(arms) as A[];
  const results = Object.fromEntries(names.map((name) => [name, {}])) as Record<A, Record<string, number[]>>;
  const began = performance.now();
  for (let round = -options.warmups; round < options.rounds; round++) {
    if (round > 0 && performance.now() - began > options.budgetMs) break;
    for (let i = 0; i < names.length; i++) {
      options.signal.throwIfAborted();
      const name = names[(i + round + options.warmups) % names.length]!;
      const figures = await arms[name]();
      await pause(restMs, options.signal);
      if (round < 0) continue;
      const into: Record<string, number[]> = results[name];
      for (const [figure, value] of Object.entries(figures)) {
        into[figure] ??= [];
        into[figure].push(value);
      }
    }
  }
  return results;
}
