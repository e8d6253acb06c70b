/** Lives of instances, and what may happen on their way to the ledger to what is told of them. */
import type { JournalRecord } from "@warren/store";
import fc from "fast-check";
import { type Meters, nothing, plus } from "../src/core/meters.ts";
import { hour, instanceId, ten, transitionAt, usageAt } from "./events.ts";
import type { Total } from "./model.ts";

const tenants = ["a", "b", "c"] as const;
/** When the journal took all of it, in ms since 1970: after the last of it happened. */
export const storedAt = ten + 100 * hour;

interface Life {
  readonly tenant: (typeof tenants)[number];
  readonly startAt: number;
  readonly ready: boolean;
  /** What each observation adds to the counters, and how long after the one before. */
  readonly steps: readonly { readonly afterMs: number; readonly adds: Meters }[];
}

const growth = (most: bigint) => fc.bigInt({ min: 0n, max: most });
const life: fc.Arbitrary<Life> = fc.record({
  tenant: fc.constantFrom(...tenants),
  startAt: fc.integer({ min: ten, max: ten + 10 * hour }),
  ready: fc.boolean(),
  steps: fc.array(
    fc.record({
      afterMs: fc.integer({ min: 0, max: 3 * hour }),
      adds: fc.record({
        cpuUs: growth(10n ** 9n),
        memoryByteSeconds: growth(2n ** 56n),
        wallMs: growth(10n ** 6n),
        frozenMs: growth(10n ** 6n),
        thaws: growth(3n),
        requests: fc.constant(0n),
        bytesOut: fc.constant(0n),
        volumeByteSeconds: fc.constant(0n),
      }),
    }),
    { minLength: 1, maxLength: 8 },
  ),
});

interface Told {
  /** May get lost without harm. */
  readonly intermediate: JournalRecord[];
  /** Transitions to EXITED: agents keep them until acknowledged. */
  readonly final: JournalRecord[];
  readonly truth: Record<string, Total>;
}

function tell(lives: readonly Life[]): Told {
  const told: Told = { intermediate: [], final: [], truth: {} };
  for (const [n, { tenant, startAt, ready, steps }] of lives.entries()) {
    const subject = { tenant, instance: instanceId(n) };
    let at = startAt;
    let counters: Meters = nothing;
    if (ready) told.intermediate.push(transitionAt(subject, at, "STARTING", "READY"));
    for (const { afterMs, adds } of steps) {
      at += afterMs;
      counters = plus(counters, adds);
      told.intermediate.push(usageAt(subject, at, counters));
    }
    told.final.push(transitionAt(subject, at, ready ? "READY" : "STARTING", "EXITED", { usage: counters }));
    const before = told.truth[tenant] ?? { ...nothing, starts: 0, instances: 0 };
    told.truth[tenant] = {
      ...plus(before, counters),
      starts: before.starts + (ready ? 1 : 0),
      instances: before.instances + 1,
    };
  }
  return told;
}

/** Some lost, some twice (under the same id and under another), in any order, in batches of any size. */
export const faults = fc.array(life, { minLength: 1, maxLength: 5 }).chain((lives) => {
  const told = tell(lives);
  const all = [...told.intermediate, ...told.final];
  return fc
    .tuple(fc.subarray(told.intermediate), fc.subarray(all), fc.subarray(all))
    .chain(([kept, repeated, renamed]) => {
      const sent = [...kept, ...told.final, ...repeated];
      for (const record of renamed) sent.push({ ...record, id: `again:${record.id}` });
      return fc.record({
        truth: fc.constant(told.truth),
        arrived: fc.shuffledSubarray(sent, { minLength: sent.length }),
        batch: fc.integer({ min: 1, max: 12 }),
      });
    });
});

export function batches<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size));
}
