/** What a tenant's instances are predicted to need at their peak, from what they were observed to use. Pure. */
import type { Usage } from "@warren/proto/common";
import { DecayingHistogram } from "./histogram.ts";

/** Of memory in bytes and CPU in thousandths of a core. */
export interface Need {
  readonly memory: number;
  readonly cpu: number;
}

/** What was observed an hour ago counts half. */
const halfLifeMs = 3_600_000;

/** Until it rests on so many samples, what a new tenant is charged is the least. */
const settled = 5;

export class Peaks {
  /** 1 MiB to 180 GiB. */
  readonly #memory = new DecayingHistogram({ first: 2 ** 20, growth: 1.3, buckets: 48, halfLifeMs });
  /** 1 to 65,000 thousandths of a core. */
  readonly #cpu = new DecayingHistogram({ first: 1, growth: 1.5, buckets: 28, halfLifeMs });

  /** An instance's newest counters, and those before them if there were any. */
  observe(now: Usage, before: Usage | undefined, mono: number): void {
    if (now.memoryBytes > 0n) this.#memory.add(Number(now.memoryBytes), mono);
    const ms = Number(now.wallMs - (before?.wallMs ?? 0n));
    const us = Number(now.cpuUs - (before?.cpuUs ?? 0n));
    if (ms > 0 && us >= 0) this.#cpu.add(us / ms, mono);
  }

  /** The larger of the 95th percentile and the mean plus three deviations (DESIGN "Placing"). */
  predicted(unknown: Need): Need {
    return { memory: peakOf(this.#memory, unknown.memory), cpu: peakOf(this.#cpu, unknown.cpu) };
  }
}

function peakOf(histogram: DecayingHistogram, unknown: number): number {
  const peak = Math.max(histogram.quantile(0.95), histogram.mean() + 3 * histogram.deviation());
  return histogram.weight < settled ? Math.max(peak, unknown) : peak;
}
