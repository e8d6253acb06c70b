/** What a tenant's instances are predicted to need, from what they were observed to use. Pure. */
import type { Usage } from "@warren/proto/common";
import { type Estimate, peakingAt, peakOf } from "./estimate.ts";
import { DecayingHistogram } from "./histogram.ts";

/** Of memory in bytes and CPU in thousandths of a core. */
export interface Need {
  readonly memory: Estimate;
  readonly cpu: Estimate;
}

/** What was observed an hour ago counts half. */
const halfLifeMs = 3_600_000;

/** Until it rests on so many samples, an instance is expected to peak at least where an unknown one would. */
const settled = 5;

/** CPU that was used in so long after the spawn says how dear a start is, not what the tenant needs. */
const startMs = 5_000;

export class Peaks {
  /** 1 MiB to 180 GiB. */
  readonly #memory = new DecayingHistogram({ first: 2 ** 20, growth: 1.3, buckets: 48, halfLifeMs });
  /** 1 to 65,000 thousandths of a core. */
  readonly #cpu = new DecayingHistogram({ first: 1, growth: 1.5, buckets: 28, halfLifeMs });

  /** Samples of memory that it rests on; those of long ago count for little. */
  get weight(): number {
    return this.#memory.weight;
  }

  /** An instance's newest counters, and those before them if there were any. */
  observe(now: Usage, before: Usage | undefined, mono: number): void {
    if (now.memoryBytes > 0n) this.#memory.add(Number(now.memoryBytes), mono);
    if (!before || before.wallMs < startMs) return;
    const ms = Number(now.wallMs - before.wallMs);
    const us = Number(now.cpuUs - before.cpuUs);
    if (ms > 0 && us >= 0) this.#cpu.add(us / ms, mono);
  }

  /** @param unknown what is expected of an instance of which nothing is known */
  predicted(unknown: Need): Need {
    return { memory: expected(this.#memory, unknown.memory), cpu: expected(this.#cpu, unknown.cpu) };
  }
}

/** Its peak is the larger of the 95th percentile and the mean plus three deviations (DESIGN "Placing"). */
function expected(histogram: DecayingHistogram, unknown: Estimate): Estimate {
  const { weight } = histogram;
  if (weight === 0) return unknown;
  const mean = histogram.mean();
  const observed = peakOf({ mean, variance: histogram.deviation() ** 2 });
  const least = weight < settled ? peakOf(unknown) : histogram.quantile(0.95);
  return peakingAt(mean, Math.max(observed, least));
}
