/** Clocks, deadlines and retry delays. Cores take a {@link Clock}; nobody else reads the time of day for a decision. */

import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

export interface Clock {
  /** Wall clock, ms since 1970; may step. For what is shown or stored. */
  now(): number;
  /** Monotonic, ms since some moment of this process. For every decision about how long something took. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};

/** Something did not happen by its deadline. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
  constructor(
    readonly what: string,
    readonly ms: number,
  ) {
    super(`${what}: not done within ${Math.round(ms)} ms`);
  }
}

/**
 * The promise's outcome, or a {@link DeadlineError} after `ms`. The work itself goes on: give it a signal as well
 * where it can take one.
 */
export async function withDeadline<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DeadlineError(what, ms)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Resolves after `ms`, or at once when the signal aborts (without throwing: look at the signal).
 */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.max(0, ms));
    signal?.addEventListener("abort", done, { once: true });
  });
}

/**
 * Asks again and again (each 1 to 50 ms) until the condition answers something truthy, and answers that.
 * @throws DeadlineError naming `what` after `deadlineMs`
 */
export async function waitUntil<T>(
  condition: () => T | Promise<T>,
  options: { deadlineMs: number; what?: string; signal?: AbortSignal },
): Promise<NonNullable<T>> {
  const start = performance.now();
  for (let wait = 1; ; wait = Math.min(50, wait * 2)) {
    const value = await condition();
    if (value) return value as NonNullable<T>;
    if (options.signal?.aborted) throw options.signal.reason;
    if (performance.now() - start > options.deadlineMs) {
      throw new DeadlineError(options.what ?? condition.toString().slice(0, 120), options.deadlineMs);
    }
    await pause(wait, options.signal);
  }
}

/**
 * Delay before retry number `attempt` (from 0): exponential from `baseMs` to `maxMs` with full jitter over its upper
 * half, so that many who failed together do not come back together.
 * @param random uniform in [0, 1)
 */
export function backoff(options: {
  baseMs: number;
  maxMs: number;
  attempt: number;
  random: () => number;
}): number {
  const full = Math.min(options.maxMs, options.baseMs * 2 ** Math.min(options.attempt, 30));
  return full / 2 + (full / 2) * options.random();
}

/** Protobuf duration of some ms. */
export function toDuration(ms: number): Duration {
  const whole = Math.trunc(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(whole), nanos: Math.round((ms - whole * 1000) * 1e6) });
}

/** ms of a protobuf duration, or `absent` where there is none. */
export function fromDuration<T>(duration: Duration | undefined, absent: T): number | T {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : absent;
}

/** Protobuf timestamp of ms since 1970. */
export function toTimestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000);
  return create(TimestampSchema, {
    seconds: BigInt(seconds),
    nanos: Math.round((ms - seconds * 1000) * 1e6),
  });
}

/** ms since 1970, or `absent` where there is no timestamp. */
export function fromTimestamp<T>(timestamp: Timestamp | undefined, absent: T): number | T {
  return timestamp ? Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6 : absent;
}
