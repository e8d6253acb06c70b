/**
 * Whether an instance still serves, as a pure state machine: it is looked at again and again, it may beat, probes may be
 * answered. No clock, no I/O; `watch.ts` feeds it. What must hold:
 *
 * V1. Unhealthy is told once, and nothing after it.
 * V2. At most one probe is under way.
 * V3. Only failures in a row count, of probes begun after the start period and within one time of running: a freeze
 *     begins anew.
 * V4. Time in which the agent did not look (it was stopped, or starved) is nobody's silence and makes no probe late.
 */
import { fromDuration } from "@warren/common/time";
import type { Liveness } from "@warren/proto/common";
import type { Answer } from "./ask.ts";
import { isExpected } from "./readiness.ts";

export interface LivenessPolicy {
  /** Asked with GET; "" for no probe. */
  readonly path: string;
  /** Between the begins of two probes, ms. */
  readonly intervalMs: number;
  /** Until a probe has failed, ms. */
  readonly timeoutMs: number;
  /** Failures in a row that make it unhealthy. */
  readonly threshold: number;
  /** From readiness on, ms. */
  readonly startPeriodMs: number;
  /** Longest healthy silence between heartbeats, ms; 0 where none are expected. */
  readonly heartbeatMs: number;
}

/** What a spec asks for; undefined where it is not watched. Plain data, fit for a record. */
export function livenessPolicy(spec: Liveness | undefined): LivenessPolicy | undefined {
  if (!spec || (spec.path === "" && !spec.heartbeat)) return undefined;
  return {
    path: spec.path,
    intervalMs: fromDuration(spec.interval, 10_000),
    timeoutMs: fromDuration(spec.timeout, 2_000),
    threshold: spec.threshold || 3,
    startPeriodMs: fromDuration(spec.startPeriod, 0),
    heartbeatMs: fromDuration(spec.heartbeat, 0),
  };
}

/** How often to look, ms: so that nothing is noticed later than by a quarter of what was asked, or by a second. */
export function lookEveryMs(policy: LivenessPolicy): number {
  const probe = policy.path === "" ? Number.POSITIVE_INFINITY : policy.intervalMs;
  const silence = policy.heartbeatMs || Number.POSITIVE_INFINITY;
  return Math.max(25, Math.min(1_000, probe / 4, silence / 4));
}

/** All times are monotonic ms. */
export interface LivenessState {
  /** End of the start period. */
  readonly countsFrom: number;
  readonly lookedAt: number;
  readonly paused: boolean;
  /** When the next probe is due. */
  readonly probeAt: number;
  /** The probe under way; `void` when its answer does not count any more. */
  readonly probe?: { readonly began: number; readonly void: boolean };
  /** In a row. */
  readonly failures: number;
  /** The last heartbeat, or since when one is waited for. */
  readonly heardAt: number;
  readonly told: boolean;
}

export type LivenessInput =
  /** Time has passed. `paused`: it is frozen. */
  | { readonly kind: "look"; readonly paused: boolean }
  | { readonly kind: "beat" }
  /** Of the probe under way. */
  | { readonly kind: "answer"; readonly answer: Answer; readonly paused: boolean };

export interface LivenessStep {
  readonly state: LivenessState;
  readonly todo?:
    | { readonly kind: "probe" }
    /** One sentence of what was seen last. */
    | { readonly kind: "unhealthy"; readonly message: string };
}

/**
 * @param readyForMs how long it has been ready already
 * @param random in [0, 1): when within the first interval the first probe is due, so that those of many are spread
 */
export function beginLiveness(
  policy: LivenessPolicy,
  now: number,
  readyForMs: number,
  random: number,
): LivenessState {
  return {
    countsFrom: now - readyForMs + policy.startPeriodMs,
    lookedAt: now,
    paused: false,
    probeAt: now + random * policy.intervalMs,
    failures: 0,
    heardAt: now,
    told: false,
  };
}

export function stepLiveness(
  policy: LivenessPolicy,
  state: LivenessState,
  input: LivenessInput,
  now: number,
): LivenessStep {
  if (state.told) return { state };
  switch (input.kind) {
    case "beat":
      return { state: { ...state, heardAt: now } };
    case "look":
      return look(policy, state, input.paused, now);
    case "answer":
      return answered(policy, state, input, now);
  }
}

function look(policy: LivenessPolicy, before: LivenessState, paused: boolean, now: number): LivenessStep {
  if (paused) return { state: voidProbe({ ...before, lookedAt: now, paused, failures: 0 }) };
  if (before.paused) {
    const probeAt = now + policy.intervalMs;
    return { state: { ...before, lookedAt: now, paused, heardAt: now, probeAt } };
  }
  // V4: what a look is late by, unless it is little.
  const every = lookEveryMs(policy);
  const late = now - before.lookedAt - every;
  const heardAt = late > every / 2 ? Math.min(now, before.heardAt + late) : before.heardAt;
  const state = { ...before, lookedAt: now, heardAt };
  const silence = now - Math.max(heardAt, state.countsFrom);
  if (policy.heartbeatMs > 0 && silence > policy.heartbeatMs) {
    const message = `no heartbeat for ${Math.round(silence)} ms, and ${policy.heartbeatMs} ms are allowed`;
    return unhealthy(state, message);
  }
  if (policy.path === "" || state.probe || now < state.probeAt) return { state };
  // From when it was due, so that looking does not stretch the interval; but none is made up for.
  const probeAt = Math.max(state.probeAt, now - policy.intervalMs) + policy.intervalMs;
  return { state: { ...state, probe: { began: now, void: false }, probeAt }, todo: { kind: "probe" } };
}

function answered(
  policy: LivenessPolicy,
  before: LivenessState,
  { answer, paused }: Extract<LivenessInput, { kind: "answer" }>,
  now: number,
): LivenessStep {
  const { probe, ...state } = before;
  if (!probe) return { state };
  if (answer.kind === "status" && isExpected(answer.status, 0)) return { state: { ...state, failures: 0 } };
  // V4: a timeout that fired late says that the agent stood still, not that the instance did.
  const late = answer.kind === "none" && now - probe.began > policy.timeoutMs * 1.5;
  if (probe.void || paused || late || probe.began < state.countsFrom) return { state };
  const failures = state.failures + 1;
  if (failures < policy.threshold) return { state: { ...state, failures } };
  const what = failures === 1 ? "a probe" : `${failures} probes`;
  const inRow = failures === 1 ? "" : " in a row";
  const seen = answer.kind === "status" ? `it answered ${answer.status}` : answer.why;
  return unhealthy({ ...state, failures }, `${what} of ${policy.path}${inRow} failed: ${seen}`);
}

function voidProbe(state: LivenessState): LivenessState {
  return state.probe ? { ...state, probe: { ...state.probe, void: true } } : state;
}

function unhealthy(state: LivenessState, message: string): LivenessStep {
  return { state: { ...state, told: true }, todo: { kind: "unhealthy", message } };
}
