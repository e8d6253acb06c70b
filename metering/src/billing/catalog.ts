/**
 * What can be priced, limited and exported: the contract's meters. Each is counted in whole base units (microseconds,
 * byte-seconds, milliseconds), of which so many make the unit that prices and limits speak of. Pure; no floats.
 */
import { UsageMeter } from "@warren/proto/common";

/** What was used, as the ledger counts it. */
export interface Use {
  /** Microseconds. */
  readonly cpuUs: bigint;
  /** Byte-seconds. */
  readonly memoryByteSeconds: bigint;
  /** Milliseconds alive, frozen or not. */
  readonly wallMs: bigint;
  /** Of them frozen. */
  readonly frozenMs: bigint;
  readonly requests: bigint;
  readonly bytesOut: bigint;
  readonly starts: bigint;
  readonly thaws: bigint;
  /** Byte-seconds of volumes. */
  readonly volumeByteSeconds: bigint;
}

export interface MeterKind {
  readonly meter: UsageMeter;
  /** As plans and exports name it. */
  readonly name: MeterKey;
  /** For people. */
  readonly title: string;
  /** Base units in one unit. */
  readonly perUnit: bigint;
  /** Base units used. */
  readonly of: (use: Use) => bigint;
}

/** Alive and not frozen, in ms. */
export const activeMs = ({ wallMs, frozenMs }: Pick<Use, "wallMs" | "frozenMs">): bigint =>
  wallMs > frozenMs ? wallMs - frozenMs : 0n;

export const meterKeys = [
  "cpu-seconds",
  "memory-gib-seconds",
  "active-seconds",
  "frozen-seconds",
  "requests",
  "bytes-out",
  "starts",
  "thaws",
  "volume-gib-hours",
] as const;

export type MeterKey = (typeof meterKeys)[number];

const kinds: Readonly<Record<MeterKey, Omit<MeterKind, "name">>> = {
  "cpu-seconds": {
    meter: UsageMeter.CPU_SECONDS,
    title: "CPU",
    perUnit: 1_000_000n,
    of: (use) => use.cpuUs,
  },
  "memory-gib-seconds": {
    meter: UsageMeter.MEMORY_GIB_SECONDS,
    title: "Memory",
    perUnit: 2n ** 30n,
    of: (use) => use.memoryByteSeconds,
  },
  "active-seconds": {
    meter: UsageMeter.ACTIVE_SECONDS,
    title: "Active time",
    perUnit: 1_000n,
    of: activeMs,
  },
  "frozen-seconds": {
    meter: UsageMeter.FROZEN_SECONDS,
    title: "Frozen time",
    perUnit: 1_000n,
    of: (use) => use.frozenMs,
  },
  requests: { meter: UsageMeter.REQUESTS, title: "Requests", perUnit: 1n, of: (use) => use.requests },
  "bytes-out": { meter: UsageMeter.BYTES_OUT, title: "Traffic out", perUnit: 1n, of: (use) => use.bytesOut },
  starts: { meter: UsageMeter.STARTS, title: "Cold starts", perUnit: 1n, of: (use) => use.starts },
  thaws: { meter: UsageMeter.THAWS, title: "Thaws", perUnit: 1n, of: (use) => use.thaws },
  "volume-gib-hours": {
    meter: UsageMeter.VOLUME_GIB_HOURS,
    title: "Volumes",
    perUnit: 2n ** 30n * 3_600n,
    of: (use) => use.volumeByteSeconds,
  },
};

export const kindOf = (name: MeterKey): MeterKind => ({ name, ...kinds[name] });

/** All of them, in the contract's order. */
export const meterKinds: readonly MeterKind[] = meterKeys.map(kindOf);

const byMeter = new Map(meterKinds.map((kind) => [kind.meter, kind]));

/** Nothing for a meter of a newer version. */
export const kindOfMeter = (meter: UsageMeter): MeterKind | undefined => byMeter.get(meter);
