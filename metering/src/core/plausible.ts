/**
 * What no honest agent on a working host can have seen. Each observation is judged by itself, never against the ones
 * before it: otherwise the order of arrival would decide what is billed (L2 in account.ts).
 */
import { type MeterName, type Meters, meterNames } from "./meters.ts";

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;

/** Nothing of Warren ran before, in ms since 1970. */
const earliest = Date.UTC(2020);

/** How far ahead of the journal's clock a node's may be, in ms. */
const aheadMs = dayMs;

/** How far the clocks of a scheduler (in the instance's id) or a gateway and the journal's may differ, in ms. */
const slackMs = dayMs;

/** Longest life of an instance whose age cannot be known, since the clocks contradict each other, in ms. */
const longestLifeMs = 10 * 365 * dayMs;

/** Most in one ms of a life: of an instance 4,096 CPUs, 64 TiB, a thaw; of a gateway 10,000 requests, 1 GiB; of a volume 64 TiB. */
const mostPerMs: Readonly<Record<MeterName, bigint>> = {
  cpuUs: 4_096n * 1_000n,
  memoryByteSeconds: 2n ** 46n / 1_000n,
  wallMs: 1n,
  frozenMs: 1n,
  thaws: 1n,
  requests: 10_000n,
  bytesOut: 2n ** 30n,
  volumeByteSeconds: 2n ** 46n / 1_000n,
};

export type TimeOddity = "time-past" | "time-future";

/**
 * What is wrong with a producer's clock, if anything.
 * @param time of the event, in ms since 1970
 * @param storedAt when the journal took it, in ms since 1970
 * @param created when what it is about began, by its id, in ms since 1970
 */
export function timeOddity(time: number, storedAt: number, created: number): TimeOddity | undefined {
  // Nothing is used before it begins. Where it began in the journal's future, that clock was the wrong one.
  if (time < earliest || time < Math.min(created, storedAt) - slackMs) return "time-past";
  return time > storedAt + aheadMs ? "time-future" : undefined;
}

/**
 * The first meter that is higher than the age of what it counts allows: a counter that wrapped below zero, or garbage.
 * @param created when that began, by its id, in ms since 1970
 * @param now latest moment at which the counters may have been read, in ms since 1970
 */
export function implausibleMeter(created: number, used: Meters, now: number): MeterName | undefined {
  const age = created <= now + slackMs ? Math.max(0, now - created) + slackMs : longestLifeMs;
  return meterNames.find((name) => used[name] > BigInt(Math.ceil(age)) * mostPerMs[name]);
}
