/**
 * What is metered of an instance, as bigint throughout: the contract's counters are u64, and memory in byte-seconds
 * passes 2^53 within three months of one GiB.
 */
import type { Usage } from "@warren/proto/common";

/** Counters of one instance since its start, or what they grew by. */
export interface Meters {
  /** CPU, in microseconds. */
  readonly cpuUs: bigint;
  /** Memory over time, in byte-seconds. */
  readonly memoryByteSeconds: bigint;
  /** Alive, in milliseconds. */
  readonly wallMs: bigint;
  /** Of these, frozen, in milliseconds. */
  readonly frozenMs: bigint;
}

export const meterNames = ["cpuUs", "memoryByteSeconds", "wallMs", "frozenMs"] as const;

export type MeterName = (typeof meterNames)[number];

export function meters(of: (name: MeterName) => bigint): Meters {
  return {
    cpuUs: of("cpuUs"),
    memoryByteSeconds: of("memoryByteSeconds"),
    wallMs: of("wallMs"),
    frozenMs: of("frozenMs"),
  };
}

export const nothing: Meters = meters(() => 0n);

export const metersOf = (usage: Usage): Meters => meters((name) => usage[name]);

export const plus = (a: Meters, b: Meters): Meters => meters((name) => a[name] + b[name]);

/** What `now` adds to `before`, never negative: a lower counter is an older one. */
export const growth = (before: Meters, now: Meters): Meters =>
  meters((name) => (now[name] > before[name] ? now[name] - before[name] : 0n));

export const isNothing = (a: Meters): boolean => meterNames.every((name) => a[name] === 0n);
