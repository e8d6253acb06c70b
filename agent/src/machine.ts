/**
 * The life of one instance, as a pure state machine: state and input in, state and effects out. It reads no clock, does
 * no I/O and calls nobody; `instance.ts` performs the effects and feeds the inputs.
 *
 * M1. Phases only ever move forward.
 * M2. EXITED is told only after `gone`: the shell has looked and found no process.
 * M3. The first cause wins: a stop that meets a crash does not rename it, and a late callback of a start that was
 *     stopped changes nothing.
 * M4. Every path ends: `end` is asked for exactly once, whatever arrives in whatever order.
 */
import { ExitReason, InstanceState } from "@warren/proto/common";

export type Phase =
  /** Accepted: its files are fetched, it waits for its turn. */
  | "pending"
  /** Its process exists and is asked whether it is ready. */
  | "starting"
  | "ready"
  /** Its processes are being ended. */
  | "stopping"
  /** Nothing of it is left. */
  | "exited"
  /** Could not be accepted after all, by no fault of the tenant: as if it had never been asked for. */
  | "refused";

/** Why an instance ends. */
export interface Cause {
  readonly reason: ExitReason;
  /** One sentence for a person, where there is more to say than the reason. */
  readonly message?: string;
}

/** How its first process ended. */
export interface ProcessEnd {
  readonly code?: number;
  /** "SIGKILL" */
  readonly signal?: string;
}

export interface MachineState {
  readonly phase: Phase;
  /** The newest state that was told to the scheduler, and since when (ms since 1970). */
  readonly told: InstanceState;
  readonly since: number;
  readonly cause?: Cause;
  readonly end?: ProcessEnd;
  /** The refusal, once `refused`. */
  readonly error?: unknown;
}

export type Input =
  /** It is there and its turn has come. */
  | { readonly kind: "prepared" }
  /** We could not prepare it; the caller gets this error. */
  | { readonly kind: "refused"; readonly error: unknown }
  /** It cannot be run, by the tenant's fault. */
  | { readonly kind: "unstartable"; readonly message: string }
  | { readonly kind: "spawned" }
  | { readonly kind: "ready" }
  | { readonly kind: "not-ready"; readonly cause: Cause }
  | { readonly kind: "process-exited"; readonly end: ProcessEnd; readonly cause?: Cause }
  | { readonly kind: "stop"; readonly cause: Cause; readonly graceMs: number }
  /** No process of it is left. */
  | { readonly kind: "gone" };

export type Effect =
  /** Fetch its files and wait for its turn; answers `prepared`, `refused` or `unstartable`. */
  | { readonly kind: "prepare" }
  /** Answers `spawned` or `unstartable` before anything else can happen. */
  | { readonly kind: "spawn" }
  /** Answers `ready` or `not-ready`. */
  | { readonly kind: "probe" }
  /** Give up preparing or probing. */
  | { readonly kind: "cancel" }
  /** End all its processes; answers `gone`. */
  | { readonly kind: "end"; readonly graceMs: number }
  /** SIGKILL no later than in `graceMs`. */
  | { readonly kind: "hurry"; readonly graceMs: number }
  /** A transition for the scheduler; the one to EXITED carries how it ended. */
  | {
      readonly kind: "tell";
      readonly from: InstanceState;
      readonly to: InstanceState;
      readonly afterMs: number;
      readonly exit?: Outcome;
    }
  /** The start has come out: those who wait for it are answered. */
  | { readonly kind: "settle" };

/** How an instance ended. */
export interface Outcome extends Cause, ProcessEnd {}

export interface Step {
  readonly state: MachineState;
  readonly effects: readonly Effect[];
}

/** A start that goes wrong by itself is ended with a grace of at most this many ms: it has no requests to finish. */
const failedStartGraceMs = 1_000;

/**
 * A new instance.
 * @param now ms since 1970
 */
export function begin(now: number): Step {
  return {
    state: { phase: "pending", told: InstanceState.PENDING, since: now },
    effects: [{ kind: "prepare" }],
  };
}

/**
 * An instance whose process was found alive by a new agent: it goes on where it was.
 * @param graceMs what is left until SIGKILL, if it was being stopped
 */
export function resume(state: MachineState, graceMs: number): Step {
  switch (state.phase) {
    case "starting":
      return { state, effects: [{ kind: "probe" }] };
    case "stopping":
      return { state, effects: [{ kind: "settle" }, { kind: "end", graceMs }] };
    case "ready":
      return { state, effects: [{ kind: "settle" }] };
    default:
      return end(state, { reason: ExitReason.UNKNOWN }, 0);
  }
}

/**
 * An instance whose process was not found by a new agent. What is left of it is ended at once.
 */
export function bury(state: MachineState, message: string): Step {
  return end(state, state.cause ?? { reason: ExitReason.UNKNOWN, message }, 0);
}

export function step(state: MachineState, input: Input, now: number): Step {
  switch (state.phase) {
    case "pending":
      return pending(state, input, now);
    case "starting":
      return starting(state, input, now);
    case "ready":
      return ready(state, input, now);
    case "stopping":
      return stopping(state, input, now);
    default:
      return { state, effects: [] }; // over: whatever comes now is late
  }
}

function pending(state: MachineState, input: Input, now: number): Step {
  switch (input.kind) {
    case "prepared":
      return { state, effects: [{ kind: "spawn" }] };
    case "spawned":
      return told(state, "starting", InstanceState.STARTING, now, [{ kind: "probe" }]);
    case "refused":
      return { state: { ...state, phase: "refused", error: input.error }, effects: [{ kind: "settle" }] };
    case "unstartable":
      return end(state, { reason: ExitReason.CRASHED, message: input.message }, 0);
    case "stop":
      return stop(state, input, now, [{ kind: "cancel" }]);
    default:
      return ignored(state);
  }
}

function starting(state: MachineState, input: Input, now: number): Step {
  switch (input.kind) {
    case "ready":
      return told(state, "ready", InstanceState.READY, now, [{ kind: "settle" }]);
    case "not-ready":
      return end(state, input.cause, failedStartGraceMs);
    case "process-exited": {
      const step = exitedByItself(state, input, " before it was ready");
      return { ...step, effects: [{ kind: "cancel" }, ...step.effects] };
    }
    case "stop":
      return stop(state, input, now, [{ kind: "cancel" }]);
    default:
      return ignored(state);
  }
}

function ready(state: MachineState, input: Input, now: number): Step {
  switch (input.kind) {
    case "process-exited":
      return exitedByItself(state, input, "");
    case "stop":
      return stop(state, input, now, []);
    default:
      return ignored(state);
  }
}

function stopping(state: MachineState, input: Input, now: number): Step {
  switch (input.kind) {
    case "process-exited":
      return { state: { ...state, end: input.end }, effects: [] };
    case "stop":
      return { state, effects: [{ kind: "hurry", graceMs: input.graceMs }] };
    case "gone": {
      const exit: Outcome = { ...(state.cause ?? { reason: ExitReason.UNKNOWN }), ...state.end };
      return told(state, "exited", InstanceState.EXITED, now, [{ kind: "settle" }], exit);
    }
    default:
      return ignored(state);
  }
}

/** It was told to go: those who route to it learn that before its processes do. */
function stop(
  state: MachineState,
  input: Extract<Input, { kind: "stop" }>,
  now: number,
  first: readonly Effect[],
): Step {
  return told({ ...state, cause: input.cause }, "stopping", InstanceState.STOPPING, now, [
    ...first,
    { kind: "end", graceMs: input.graceMs },
  ]);
}

/** Nobody told it to go, so that STOPPING is not told: the next that is heard of it is EXITED. */
function end(state: MachineState, cause: Cause, graceMs: number): Step {
  return { state: { ...state, phase: "stopping", cause }, effects: [{ kind: "end", graceMs }] };
}

function exitedByItself(
  state: MachineState,
  input: Extract<Input, { kind: "process-exited" }>,
  when: string,
): Step {
  const { end: how, cause } = input;
  const clean = how.code === 0;
  const step = end(
    state,
    cause ?? {
      reason: clean ? ExitReason.EXITED_CLEAN : ExitReason.CRASHED,
      message: `${how.signal ? `ended by ${how.signal}` : `exited with code ${how.code ?? "unknown"}`}${when}`,
    },
    0, // its children have lost their parent: nothing of it can serve
  );
  return { ...step, state: { ...step.state, end: how } };
}

function told(
  state: MachineState,
  phase: Phase,
  to: InstanceState,
  now: number,
  then: readonly Effect[],
  exit?: Outcome,
): Step {
  const tell: Effect = {
    kind: "tell",
    from: state.told,
    to,
    // The wall clock may have been set back in between.
    afterMs: Math.max(0, now - state.since),
    ...(exit ? { exit } : {}),
  };
  return { state: { ...state, phase, told: to, since: now }, effects: [tell, ...then] };
}

function ignored(state: MachineState): Step {
  return { state, effects: [] };
}
