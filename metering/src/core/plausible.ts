/**
 * What no honest agent on a working host can have seen. Each observation is judged by itself, never against the ones
 * before it: otherwise the order of arrival would decide what is billed (L2 in account.ts).
 */
import { type MeterName, type Meters, meterNames } from "./meters.ts";
import { createdAt } from "./ulid.ts";

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;

/** Nothing of Warren ran before, in ms since 1970. */
const earliest = Date.UTC(2020);

/** How far ahead of us a node's clock may be, in ms. */
const aheadMs = dayMs;

/** How far the clocks of a scheduler (in the instance's id) and ours may differ, in ms. */
const slackMs = dayMs;

/** Longest life of an instance whose age cannot be known, since the clocks contradict each other, in ms. */
const longestLifeMs = 10 * 365 * dayMs;

/** Most that one instance can use in one ms of its life: 4,096 CPUs, 64 TiB. */
const mostPerMs: Readonly<Record<MeterName, bigint>> = {
  cpuUs: 4_096n * 1_000n,
  memoryByteSeconds: 2n ** 46n / 1_000n,
  wallMs: 1n,
  frozenMs: 1n,
};

export type TimeOddity = "time-past" | "time-future";

/**
 * What is wrong with a producer's clock, if anything.
 * @param time of the event, in ms since 1970
 * @param receivedAt by our clock, in ms since 1970
 */
export function timeOddity(time: number, receivedAt: number): TimeOddity | undefined {
  if (time < earliest) return "time-past";
  return time > receivedAt + aheadMs ? "time-future" : undefined;
}

/**
 * The first meter that is higher than the instance's age allows: a counter that wrapped below zero, or garbage.
 * @param now latest moment at which the counters may have been read, in ms since 1970
 */
export function implausibleMeter(instance: string, used: Meters, now: number): MeterName | undefined {
  const created = createdAt(instance) ?? Number.POSITIVE_INFINITY;
  const age = created <= now + slackMs ? Math.max(0, now - created) + slackMs : longestLifeMs;
  return meterNames.find((name) => used[name] > BigInt(Math.ceil(age)) * mostPerMs[name]);
}
