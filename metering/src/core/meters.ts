/**
 * What is metered, as bigint throughout: the contract's counters are u64, and memory in byte-seconds passes 2^53 within
 * three months of one GiB. The first five are an instance's, the next two a gateway's, the last a volume's.
 */
import type { StorageReport, TrafficReport, Usage } from "@warren/proto/common";

/** Counters of one account since its start, or what they grew by. */
export interface Meters {
  /** CPU, in microseconds. */
  readonly cpuUs: bigint;
  /** Memory over time, in byte-seconds. */
  readonly memoryByteSeconds: bigint;
  /** Alive, in milliseconds. */
  readonly wallMs: bigint;
  /** Of these, frozen, in milliseconds. */
  readonly frozenMs: bigint;
  /** Thaws after it had been frozen or paged out. */
  readonly thaws: bigint;
  /** Requests, streams and WebSockets that a gateway passed to instances. */
  readonly requests: bigint;
  /** Bytes of bodies and WebSocket messages that a gateway sent to clients. */
  readonly bytesOut: bigint;
  /** What a volume held over time, in byte-seconds. */
  readonly volumeByteSeconds: bigint;
}

export const meterNames = [
  "cpuUs",
  "memoryByteSeconds",
  "wallMs",
  "frozenMs",
  "thaws",
  "requests",
  "bytesOut",
  "volumeByteSeconds",
] as const satisfies readonly (keyof Meters)[];

export type MeterName = (typeof meterNames)[number];

export function meters(of: (name: MeterName) => bigint): Meters {
  return {
    cpuUs: of("cpuUs"),
    memoryByteSeconds: of("memoryByteSeconds"),
    wallMs: of("wallMs"),
    frozenMs: of("frozenMs"),
    thaws: of("thaws"),
    requests: of("requests"),
    bytesOut: of("bytesOut"),
    volumeByteSeconds: of("volumeByteSeconds"),
  };
}

export const nothing: Meters = meters(() => 0n);

/** An instance's. */
export function metersOf({ cpuUs, memoryByteSeconds, wallMs, frozenMs, thaws }: Usage): Meters {
  return { ...nothing, cpuUs, memoryByteSeconds, wallMs, frozenMs, thaws };
}

/** A gateway's, for one tenant. */
export function trafficOf({ requests, bytesOut }: TrafficReport): Meters {
  return { ...nothing, requests, bytesOut };
}

/** A copy of a volume's. */
export function storageOf({ byteSeconds: volumeByteSeconds }: StorageReport): Meters {
  return { ...nothing, volumeByteSeconds };
}

export const plus = (a: Meters, b: Meters): Meters => meters((name) => a[name] + b[name]);

/** What `now` adds to `before`, never negative: a lower counter is an older one. */
export const growth = (before: Meters, now: Meters): Meters =>
  meters((name) => (now[name] > before[name] ? now[name] - before[name] : 0n));

export const isNothing = (a: Meters): boolean => meterNames.every((name) => a[name] === 0n);
