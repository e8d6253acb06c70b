/**
 * Counters of one instance, pure: cumulative since its start, never going back, so that a lost or doubled report cannot
 * skew a bill (rule 8).
 */
import { create } from "@bufbuild/protobuf";
import { type Usage, UsageSchema } from "@warren/proto/common";

/** What was read of an instance's processes at one moment. */
export interface Sample {
  /** CPU of those that are there and of the children they reaped, or of the whole cgroup, in microseconds. */
  readonly cpuUs: number;
  readonly rssBytes: number;
  readonly pids: number;
  /** Read only now and then, since it is dear. */
  readonly pssBytes?: number;
  readonly openFiles?: number;
  /** Memory charged to the cgroup, where that is counted: no need for PSS then. */
  readonly groupMemoryBytes?: number;
}

export interface Counters {
  readonly cpuUs: number;
  readonly byteSeconds: number;
  readonly wallMs: number;
  /** Of these, frozen. */
  readonly frozenMs: number;
  /** From frozen or paged out to running. */
  readonly thaws: number;
  readonly memoryBytes: number;
  readonly rssBytes: number;
  readonly pids: number;
  readonly openFiles: number;
  /** CPU as it was sampled last; and what was seen before of processes that took their time with them. */
  readonly cpuSampledUs: number;
  readonly cpuLostUs: number;
  /** PSS as it was read last, and the RSS at that moment: what has grown since is the instance's own. */
  readonly pssBytes: number;
  readonly rssAtPss: number;
  /** ms since 1970, when these were read. */
  readonly at: number;
}

/** @param at ms since 1970 */
export function noCounters(at: number): Counters {
  return {
    cpuUs: 0,
    byteSeconds: 0,
    wallMs: 0,
    frozenMs: 0,
    thaws: 0,
    memoryBytes: 0,
    rssBytes: 0,
    pids: 0,
    openFiles: 0,
    cpuSampledUs: 0,
    cpuLostUs: 0,
    pssBytes: 0,
    rssAtPss: 0,
    at,
  };
}

/** When something was read: on the wall clock for the record, and since the spawn for the sums. */
export interface Moment {
  readonly at: number;
  readonly wallMs: number;
  /** Whether it was frozen from the moment before until this one. */
  readonly wasFrozen: boolean;
}

export function observe(before: Counters, sample: Sample, moment: Moment): Counters {
  const pss =
    sample.pssBytes === undefined
      ? { pssBytes: before.pssBytes, rssAtPss: before.rssAtPss }
      : { pssBytes: sample.pssBytes, rssAtPss: sample.rssBytes };
  const estimate = Math.min(sample.rssBytes, Math.max(0, pss.pssBytes + sample.rssBytes - pss.rssAtPss));
  const memoryBytes = sample.groupMemoryBytes ?? estimate;
  // Processes that nobody reaped take their time with them: the sum of those left is lower than before.
  const cpuLostUs = before.cpuLostUs + Math.max(0, before.cpuSampledUs - sample.cpuUs);
  return {
    ...advance(before, moment, (before.memoryBytes + memoryBytes) / 2),
    ...pss,
    cpuUs: Math.max(before.cpuUs, cpuLostUs + sample.cpuUs),
    cpuSampledUs: sample.cpuUs,
    cpuLostUs,
    memoryBytes,
    rssBytes: sample.rssBytes,
    pids: sample.pids,
    openFiles: sample.openFiles ?? before.openFiles,
  };
}

/**
 * Up to a moment at which nothing could be read: the end, or the time in which no agent watched. Memory is taken as it
 * was last.
 * @param cpuUs CPU known from elsewhere, if any
 */
export function extend(before: Counters, moment: Moment, cpuUs = 0): Counters {
  return { ...advance(before, moment, before.memoryBytes), cpuUs: Math.max(before.cpuUs, cpuUs) };
}

/** Once more it runs that had been frozen. */
export function thawed(before: Counters): Counters {
  return { ...before, thaws: before.thaws + 1 };
}

function advance(before: Counters, moment: Moment, memoryBytes: number): Counters {
  const wallMs = Math.max(before.wallMs, moment.wallMs);
  const passed = wallMs - before.wallMs;
  return {
    ...before,
    byteSeconds: before.byteSeconds + (memoryBytes * passed) / 1000,
    wallMs,
    frozenMs: before.frozenMs + (moment.wasFrozen ? passed : 0),
    at: moment.at,
  };
}

export function toUsage(counters: Counters): Usage {
  const whole = (n: number) => BigInt(Math.max(0, Math.round(n)));
  return create(UsageSchema, {
    cpuUs: whole(counters.cpuUs),
    memoryByteSeconds: whole(counters.byteSeconds),
    wallMs: whole(counters.wallMs),
    frozenMs: whole(counters.frozenMs),
    memoryBytes: whole(counters.memoryBytes),
    rssBytes: whole(counters.rssBytes),
    pids: counters.pids,
    openFiles: counters.openFiles,
    thaws: whole(counters.thaws),
  });
}
