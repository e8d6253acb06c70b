/** The hours, days and calendar months (UTC) that limits and invoices count in. Pure. */
import { dayMs, hourMs } from "../core/plausible.ts";

export interface Period {
  /** ms since 1970. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export type PeriodName = "hour" | "day" | "month";

/** The one that `at` (ms since 1970) lies in. */
export function periodOf(name: PeriodName, at: number): Period {
  if (name === "month") {
    const date = new Date(at);
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
    return { start: Date.UTC(year, month), end: Date.UTC(year, month + 1) };
  }
  const span = name === "hour" ? hourMs : dayMs;
  const start = Math.floor(at / span) * span;
  return { start, end: start + span };
}

/** For so long after its end something may still be added to a period, in ms: reports come late after an outage. */
export const settleMs = hourMs;

export const isSettled = ({ end }: Period, now: number): boolean => end + settleMs <= now;
