/**
 * When an unused instance goes down the ladder (active → frozen → paged out → stopped), each in ms since its last use.
 * Pure: from the tenant's spec, the cluster's defaults, what was learnt of its gaps, and the time of the week.
 */
import { isKeptAwake } from "@warren/common/spec-check";
import { fromDuration } from "@warren/common/time";
import type { IdlePolicy, TenantSpec, WarmWindow } from "@warren/proto/common";
import { DecayingHistogram } from "./histogram.ts";

export interface SleepTimes {
  readonly freeze: number;
  readonly pageOut: number;
  readonly stop: number;
}

export interface SleepDefaults {
  readonly idleFreezeAfterMs: number;
  readonly idlePageOutAfterMs: number;
  readonly idleStopAfterMs: number;
}

const never = Number.POSITIVE_INFINITY;
const awake: SleepTimes = { freeze: never, pageOut: never, stop: never };

/** @param wall ms since 1970 */
export function sleepTimes(
  spec: TenantSpec | undefined,
  gaps: Gaps | undefined,
  defaults: SleepDefaults,
  wall: number,
): SleepTimes {
  const idle = spec?.idle;
  // What no request can wake is not put to sleep: its timers and queues would stand still for ever.
  if (isKeptAwake(spec) || isWarm(idle, wall)) return awake;
  const stop = fromDuration(idle?.stopAfter, defaults.idleStopAfterMs);
  const learnt = idle?.adaptive ? adapted(stop, gaps) : stop;
  if (idle?.neverFreeze) return { freeze: never, pageOut: never, stop: learnt };
  const freeze = fromDuration(idle?.freezeAfter, defaults.idleFreezeAfterMs);
  return {
    freeze,
    pageOut: Math.max(freeze, fromDuration(idle?.pageOutAfter, defaults.idlePageOutAfterMs)),
    stop: learnt,
  };
}

/** How long a tenant is left alone between two uses. */
export class Gaps {
  /** 1 s to about a week. */
  readonly #gaps = new DecayingHistogram({
    first: 1_000,
    growth: 1.5,
    buckets: 34,
    halfLifeMs: 86_400_000,
  });

  /** Shorter ones are one use. */
  static readonly least = 1_000;

  note(gapMs: number, mono: number): void {
    if (gapMs >= Gaps.least) this.#gaps.add(gapMs, mono);
  }

  get known(): number {
    return this.#gaps.weight;
  }

  quantile(share: number): number {
    return this.#gaps.quantile(share);
  }
}

/** Fewer gaps than these say nothing. */
const enoughGaps = 8;

/**
 * Long enough to span nearly all gaps (99 of 100, and a tenth more), if that is within four times what was asked for;
 * where even most gaps are longer than that, waiting is in vain, and a quarter of it will do. After the hybrid histogram
 * policy of Shahrad et al., "Serverless in the Wild" (ATC 2020).
 */
export function adapted(stopMs: number, gaps: Gaps | undefined): number {
  if (!gaps || gaps.known < enoughGaps) return stopMs;
  const [most, nearly] = [gaps.quantile(0.5), gaps.quantile(0.99)];
  const longest = 4 * stopMs;
  if (most > longest) return stopMs / 4;
  return Math.min(longest, Math.max(stopMs / 4, nearly * 1.1));
}

/** Whether one of the windows in which it is kept running is open. */
export function isWarm(idle: IdlePolicy | undefined, wall: number): boolean {
  return idle?.warm.some((window) => isOpen(window, wall)) ?? false;
}

function isOpen({ days, from, until, timeZone }: WarmWindow, wall: number): boolean {
  const { day, minute } = localTime(wall, timeZone);
  const [begin, end] = [minutesOf(from), minutesOf(until)];
  const on = (d: number) => days.length === 0 || days.includes(d);
  if (begin < end) return on(day) && minute >= begin && minute < end;
  // It ends on the next day: today's has begun, or yesterday's has not ended.
  return (on(day) && minute >= begin) || (on(day === 1 ? 7 : day - 1) && minute < end);
}

function minutesOf(text: string): number {
  return Number(text.slice(0, 2)) * 60 + Number(text.slice(3, 5));
}

const formats = new Map<string, Intl.DateTimeFormat>();
const dayNames = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/** Whether the machine knows a time zone by that name; "" is UTC. */
export function isTimeZone(name: string): boolean {
  try {
    return formatFor(name) !== undefined;
  } catch {
    return false;
  }
}

function formatFor(timeZone: string): Intl.DateTimeFormat {
  const known = formats.get(timeZone);
  if (known) return known;
  const made = new Intl.DateTimeFormat("en-GB", {
    timeZone: timeZone || "UTC",
    weekday: "short",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  });
  formats.set(timeZone, made);
  return made;
}

/** Day 1 (Monday) to 7, and the minute of the day. */
function localTime(wall: number, timeZone: string): { day: number; minute: number } {
  const part: Record<string, string> = {};
  for (const { type, value } of formatFor(timeZone).formatToParts(wall)) part[type] = value;
  return {
    day: dayNames.indexOf(part.weekday ?? "") + 1,
    minute: Number(part.hour) * 60 + Number(part.minute),
  };
}
