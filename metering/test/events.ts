/** Records as agents' reports become them. */
import { create } from "@bufbuild/protobuf";
import { encodeEvent } from "@warren/common/cloudevents";
import { toTimestamp } from "@warren/common/time";
import {
  type InstanceMode,
  InstanceRefSchema,
  InstanceState,
  StorageReportSchema,
  TrafficReportSchema,
  TransitionSchema,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import type { JournalRecord, StoredRecord } from "@warren/store";
import { type Meters, nothing } from "../src/core/meters.ts";

export const hour = 3_600_000;

/** 10:00 UTC of a day on which nothing happened. */
export const ten = Date.UTC(2026, 5, 1, 10);

let made = 0;

/** An id that no other record has. */
export const nextId = (): string => `n1:s1:${++made}`;

const ulidDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** The n-th instance that was placed at that moment (ms since 1970). */
export function instanceId(n: number, placedAt = ten): string {
  const digits = (value: number, length: number): string =>
    length === 0 ? "" : digits(Math.floor(value / 32), length - 1) + ulidDigits[value % 32];
  return digits(placedAt, 10) + digits(n, 16);
}

export interface Subject {
  readonly tenant: string;
  readonly instance: string;
}

export const used = (some: Partial<Meters>): Meters => ({ ...nothing, ...some });

interface More {
  readonly id?: string;
  readonly usage?: Partial<Meters>;
  /** Of a change of mode. */
  readonly modes?: readonly [from: InstanceMode, to: InstanceMode];
}

export function usageAt(
  { tenant, instance }: Subject,
  at: number,
  usage: Partial<Meters>,
  id = nextId(),
): JournalRecord {
  return encodeEvent({
    id,
    source: "n1",
    time: at,
    tenant,
    payload: {
      case: "usage",
      value: create(UsageReportSchema, {
        instance: create(InstanceRefSchema, { id: instance, tenant, generation: 1n, node: "n1" }),
        at: toTimestamp(at),
        usage: create(UsageSchema, usage),
      }),
    },
  });
}

type StateName = Exclude<keyof typeof InstanceState, "UNSPECIFIED">;

export function transitionAt(
  { tenant, instance }: Subject,
  at: number,
  from: StateName,
  to: StateName,
  { id = nextId(), usage, modes }: More = {},
): JournalRecord {
  return encodeEvent({
    id,
    source: "n1",
    time: at,
    tenant,
    payload: {
      case: "transition",
      value: create(TransitionSchema, {
        instance: create(InstanceRefSchema, { id: instance, tenant, generation: 1n, node: "n1" }),
        from: InstanceState[from],
        to: InstanceState[to],
        fromMode: modes?.[0],
        toMode: modes?.[1],
        at: toTimestamp(at),
        usage: usage && create(UsageSchema, usage),
      }),
    },
  });
}

export function trafficAt(
  tenant: string,
  at: number,
  { gateway, run = 0, ...counters }: { gateway: string; run?: number; requests?: bigint; bytesOut?: bigint },
  id = nextId(),
): JournalRecord {
  const value = create(TrafficReportSchema, { tenant, gateway, run, at: toTimestamp(at), ...counters });
  return encodeEvent({ id, source: gateway, time: at, tenant, payload: { case: "traffic", value } });
}

export function storageAt(
  tenant: string,
  at: number,
  counters: { volume: string; byteSeconds?: bigint; usedBytes?: bigint },
  id = nextId(),
): JournalRecord {
  const value = create(StorageReportSchema, {
    tenant,
    name: "data",
    node: "n1",
    at: toTimestamp(at),
    ...counters,
  });
  return encodeEvent({ id, source: "n1", time: at, tenant, payload: { case: "storage", value } });
}

/** As a journal gives them back that took them at `storedAt` (ms since 1970), behind its record `after`. */
export const stored = (
  records: readonly JournalRecord[],
  { after = 0, storedAt = ten + hour } = {},
): StoredRecord[] =>
  records.map((record, index) => ({ ...record, seq: BigInt(after + index + 1), storedAt }));
