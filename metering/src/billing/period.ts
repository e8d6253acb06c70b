/** The hours, days and calendar months (UTC) that limits and invoices count in. Pure. */
import { dayMs, hourMs } from "../core/plausible.ts";
import { startOfCut, type Window, windowOf } from "../core/window.ts";

export interface Period {
  /** ms since 1970. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export type PeriodName = "hour" | "day" | "month";

/** The one that `at` (ms since 1970) lies in. */
export function periodOf(name: PeriodName, at: number): Period {
  const start = startOfCut(name, at);
  if (name !== "month") return { start, end: start + (name === "hour" ? hourMs : dayMs) };
  const date = new Date(start);
  return { start, end: Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1) };
}

/** Its hours. */
export const hoursOf = ({ start, end }: Period): Window => windowOf(start, end);

/** For so long after its end something may still be added to a period, in ms: reports come late after an outage. */
export const settleMs = hourMs;

export const isSettled = ({ end }: Period, now: number): boolean => end + settleMs <= now;
