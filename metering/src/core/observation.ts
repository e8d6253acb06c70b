/** Reads one record of the journal: what it says of an instance's use, or what is odd about it. Pure; never throws. */
import { decodeEvent, EventFormatError, eventTime } from "@warren/common/cloudevents";
import { isKey } from "@warren/common/ids";
import { type Event, InstanceState, type Transition, type UsageReport } from "@warren/proto/common";
import type { StoredRecord } from "@warren/store";
import { type Meters, metersOf } from "./meters.ts";
import { implausibleMeter, type TimeOddity, timeOddity } from "./plausible.ts";
import { isUlid } from "./ulid.ts";

/** What an event says of one instance. */
export interface Observation {
  readonly instance: string;
  readonly tenant: string;
  /** ms since 1970: in whose hour growth is posted. */
  readonly at: number;
  /** False when the event's own time is impossible, so that `at` is when we received it. */
  readonly ownTime: boolean;
  /** Whether it proves that the instance was READY. */
  readonly ready: boolean;
  /** Its counters, if the event carries any that can be believed. */
  readonly used: Meters | undefined;
}

/**
 * Why a record went to quarantine:
 * - `unreadable`: no event of ours, or broken
 * - `bad-instance`: names no instance that can exist
 * - `tenant-changed`: names an instance that belongs to another tenant
 * - `usage-implausible`: more than the instance's age allows; its counters were not counted, the rest was
 * - `time-past`, `time-future`: before 2020, or more than a day ahead of us; counted all the same, in the hour of its
 *   receipt, because what a node with a wrong clock measured is still what was used
 * - `failed`: our own defect; see the log
 */
export type OddityKind =
  | "unreadable"
  | "bad-instance"
  | "tenant-changed"
  | "usage-implausible"
  | TimeOddity
  | "failed";

/** Every kind that there is, in no order. */
export const oddityKinds = [
  "unreadable",
  "bad-instance",
  "tenant-changed",
  "usage-implausible",
  "time-past",
  "time-future",
  "failed",
] as const satisfies readonly OddityKind[];

export interface Oddity {
  readonly kind: OddityKind;
  /** One sentence for a person. */
  readonly reason: string;
}

export interface Reading {
  /** Name of the event's type, "unknown" for an unreadable one: a bounded set, fit for a metric's label. */
  readonly type: string;
  /** ms since 1970 at which it happened, by its producer; nothing if unreadable. */
  readonly time?: number;
  /** Nothing for events that say nothing about use. */
  readonly observation?: Observation;
  readonly oddity?: Oddity;
}

/** @param receivedAt ms since 1970, by our clock */
export function readRecord(record: StoredRecord, receivedAt: number): Reading {
  try {
    return readEvent(decodeEvent(record, record.seq), receivedAt);
  } catch (error) {
    const kind = error instanceof EventFormatError ? "unreadable" : "failed";
    return { type: "unknown", oddity: { kind, reason: (error as Error).message } };
  }
}

function readEvent(event: Event, receivedAt: number): Reading {
  const { payload } = event;
  const type = payload.case ?? "unknown";
  const time = eventTime(event);
  if (payload.case !== "usage" && payload.case !== "transition") return { type, time };
  return { type, time, ...observe(payload.value, time, receivedAt) };
}

function observe(
  report: UsageReport | Transition,
  time: number,
  receivedAt: number,
): Pick<Reading, "observation" | "oddity"> {
  const instance = report.instance?.id ?? "";
  const tenant = report.instance?.tenant ?? "";
  if (!isUlid(instance) || !isKey(tenant)) {
    const reason = `instance ${JSON.stringify(instance.slice(0, 80))} of tenant ${JSON.stringify(tenant.slice(0, 80))}`;
    return { oddity: { kind: "bad-instance", reason: `${reason} cannot exist` } };
  }
  const clock = timeOddity(time, receivedAt);
  const used = report.usage && metersOf(report.usage);
  const latest = clock ? receivedAt : Math.max(time, receivedAt);
  const meter = used && implausibleMeter(instance, used, latest);
  return {
    observation: {
      instance,
      tenant,
      at: clock ? receivedAt : time,
      ownTime: !clock,
      ready: wasReady(report),
      used: meter ? undefined : used,
    },
    oddity:
      used && meter
        ? { kind: "usage-implausible", reason: `${meter} is ${used[meter]}, more than its age allows` }
        : clock && { kind: clock, reason: `happened at ${shown(time)}, received at ${shown(receivedAt)}` },
  };
}

/** Leaving READY proves it as well as reaching it does, should the record of the latter be gone. */
function wasReady(report: UsageReport | Transition): boolean {
  if (report.$typeName !== "warren.common.v1.Transition") return false;
  return report.to === InstanceState.READY || report.from === InstanceState.READY;
}

function shown(time: number): string {
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString() : `${time} ms`;
}
