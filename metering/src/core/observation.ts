/** Reads one record of the journal: what it says of an instance's use, or what is odd about it. Pure; never throws. */
import { decodeEvent, EventFormatError, eventTime } from "@warren/common/cloudevents";
import { isKey } from "@warren/common/ids";
import {
  type Event,
  InstanceState,
  type StorageReport,
  type TrafficReport,
  type Transition,
  type UsageReport,
} from "@warren/proto/common";
import type { StoredRecord } from "@warren/store";
import { type Meters, metersOf, storageOf, trafficOf } from "./meters.ts";
import { implausibleMeter, type TimeOddity, timeOddity } from "./plausible.ts";
import { createdAt } from "./ulid.ts";

/** What an event says of one account: an instance's, one run of a gateway with one tenant, or a copy of a volume's. */
export interface Observation {
  /** The instance's id, `<gateway>/<run>/<tenant>`, or `volume-<id>/<tenant>`. */
  readonly account: string;
  readonly tenant: string;
  /** When what is counted began, by its id, in ms since 1970. */
  readonly created: number;
  /** ms since 1970: in whose hour growth is posted. */
  readonly at: number;
  /**
   * That it was seen in this hour is told, also where nothing grew: of instances. Not where the event's own time is
   * impossible, since a repeat would be seen in another hour.
   */
  readonly sighting: boolean;
  /** Whether it proves that the instance was READY. */
  readonly ready: boolean;
  /** Its counters, if the event carries any that can be believed. */
  readonly used: Meters | undefined;
}

/**
 * Why a record went to quarantine:
 * - `unreadable`: no event of ours, or broken
 * - `bad-instance`: names no instance that can exist
 * - `bad-gateway`: counts for no gateway or tenant that can exist
 * - `bad-volume`: counts for no volume or tenant that can exist
 * - `tenant-changed`: names an instance that belongs to another tenant
 * - `too-late`: names an instance or a gateway that has been silent for longer than the ledger remembers (fold.ts): it
 *   cannot be told from one that was counted and folded, so it is not counted
 * - `usage-implausible`: more than the instance's age allows; its counters were not counted, the rest was
 * - `time-past`, `time-future`: before 2020, more than a day before what it is about began, or more than a day ahead of the
 *   journal's clock; counted all the same, in the hour in which the journal took it, because what a node with a wrong clock
 *   measured is still what was used, and in an hour that is long settled nobody would be billed for it
 * - `failed`: our own defect; see the log
 */
export type OddityKind =
  | "unreadable"
  | "bad-instance"
  | "bad-gateway"
  | "bad-volume"
  | "tenant-changed"
  | "too-late"
  | "usage-implausible"
  | TimeOddity
  | "failed";

/** Every kind that there is, in no order. */
export const oddityKinds = [
  "unreadable",
  "bad-instance",
  "bad-gateway",
  "bad-volume",
  "tenant-changed",
  "too-late",
  "usage-implausible",
  "time-past",
  "time-future",
  "failed",
] as const satisfies readonly OddityKind[];

const ulidLength = 26;
/** As the contract has it; without "/", which keeps its accounts apart from each other and from instances. */
const gatewayShape = /^[A-Za-z0-9_.-]{1,100}-[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

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

/** Judged by the time at which the journal took it, never by our clock: whoever reads it again reads the same. */
export function readRecord(record: StoredRecord): Reading {
  try {
    return readEvent(decodeEvent(record, record.seq), record.storedAt);
  } catch (error) {
    const kind = error instanceof EventFormatError ? "unreadable" : "failed";
    return { type: "unknown", oddity: { kind, reason: fitText((error as Error).message) } };
  }
}

function readEvent(event: Event, storedAt: number): Reading {
  const { payload } = event;
  const type = payload.case ?? "unknown";
  const time = eventTime(event);
  switch (payload.case) {
    case "usage":
    case "transition":
      return { type, time, ...ofInstance(payload.value, time, storedAt) };
    case "storage":
      return { type, time, ...ofVolume(payload.value, time, storedAt) };
    case "traffic":
      return { type, time, ...ofGateway(payload.value, time, storedAt) };
    default:
      return { type, time };
  }
}

type Observed = Pick<Reading, "observation" | "oddity">;

function ofInstance(report: UsageReport | Transition, time: number, storedAt: number): Observed {
  const { id = "", tenant = "" } = report.instance ?? {};
  const created = createdAt(id);
  if (created === undefined || !isKey(tenant)) {
    return refused("bad-instance", `instance ${quoted(id)} of tenant ${quoted(tenant)}`);
  }
  const used = report.usage && metersOf(report.usage);
  return observe({ account: id, tenant, ready: wasReady(report), used, created, time, storedAt }, true);
}

/** The highest value counts within a run; a new run counts from 0, in an account of its own. */
function ofGateway(report: TrafficReport, time: number, storedAt: number): Observed {
  const { gateway, run, tenant } = report;
  const created = gatewayShape.test(gateway) ? createdAt(gateway.slice(-ulidLength)) : undefined;
  if (created === undefined || !isKey(tenant)) {
    return refused("bad-gateway", `gateway ${quoted(gateway)} with tenant ${quoted(tenant)}`);
  }
  const account = `${gateway}/${run}/${tenant}`;
  return observe({ account, tenant, ready: false, used: trafficOf(report), created, time, storedAt }, false);
}

/**
 * An account like a gateway's, in that it counts no instance, and that it is remembered for longer than it may be silent: a
 * node that is away for months goes on counting where it was. A restored volume is another copy, in an account of its own.
 */
function ofVolume(report: StorageReport, time: number, storedAt: number): Observed {
  const { volume, tenant } = report;
  const created = createdAt(volume);
  if (created === undefined || !isKey(tenant)) {
    return refused("bad-volume", `volume ${quoted(volume)} of tenant ${quoted(tenant)}`);
  }
  const account = `volume-${volume}/${tenant}`;
  return observe({ account, tenant, ready: false, used: storageOf(report), created, time, storedAt }, false);
}

interface Told extends Pick<Observation, "account" | "tenant" | "created" | "ready" | "used"> {
  readonly time: number;
  readonly storedAt: number;
}

function observe({ created, time, storedAt, used, ...told }: Told, sighting: boolean): Observed {
  const clock = timeOddity(time, storedAt, created);
  const latest = clock ? storedAt : Math.max(time, storedAt);
  const meter = used && implausibleMeter(created, used, latest);
  return {
    observation: {
      ...told,
      created,
      at: clock ? storedAt : time,
      sighting: sighting && !clock,
      used: meter ? undefined : used,
    },
    oddity:
      used && meter
        ? { kind: "usage-implausible", reason: `${meter} is ${used[meter]}, more than its age allows` }
        : clock && { kind: clock, reason: `happened at ${shown(time)}, stored at ${shown(storedAt)}` },
  };
}

function refused(kind: OddityKind, what: string): Observed {
  return { oddity: { kind, reason: fitText(`${what} cannot exist`) } };
}

const quoted = (text: string): string => JSON.stringify(text.slice(0, 80));

/** What every database takes as text, and of a length that a person reads. */
const fitText = (text: string): string => text.slice(0, 1_000).toWellFormed().replaceAll("\0", "\ufffd");

/** Leaving READY proves it as well as reaching it does, should the record of the latter be gone. */
function wasReady(report: UsageReport | Transition): boolean {
  if (report.$typeName !== "warren.common.v1.Transition") return false;
  return report.to === InstanceState.READY || report.from === InstanceState.READY;
}

function shown(time: number): string {
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString() : `${time} ms`;
}
