/**
 * The life of one instance, as a pure state machine: state and input in, state and effects out. It reads no clock, does
 * no I/O and calls nobody; `instance.ts` performs the effects and feeds the inputs.
 *
 * M1. Phases only ever move forward.
 * M2. EXITED is told only after `gone`: the shell has looked and found no process.
 * M3. The first cause wins: a stop that meets a crash does not rename it, and a late callback of a start that was
 *     stopped changes nothing.
 * M4. Every path ends: `end` is asked for exactly once, whatever arrives in whatever order.
 * M5. FROZEN is told only after `frozen`: the shell has looked and found nothing running. A thaw always wins: whatever
 *     freezing was under way when it came is undone.
 */
import { ExitReason, InstanceMode, InstanceState } from "@warren/proto/common";

export type Phase =
  /** Accepted: its files are fetched, it waits for its turn. */
  | "pending"
  /** Its process exists and is asked whether it is ready. */
  | "starting"
  | "ready"
  /** Told to go; the connections to it may end first. */
  | "draining"
  /** Its processes are being ended. */
  | "stopping"
  /** Nothing of it is left. */
  | "exited"
  /** Could not be accepted after all, by no fault of the tenant: as if it had never been asked for. */
  | "refused";

/** What an instance does while it is ready. */
export type Activity =
  | "running"
  /** Its processes are being stopped; from outside it is still active. */
  | "freezing"
  | "frozen"
  /** Frozen, its memory given back. */
  | "paged-out";

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
  /** What it does while `ready`. */
  readonly activity: Activity;
  /** Raised by each thaw that was asked for. */
  readonly wakes: number;
  /** The newest state that was told to the scheduler, and since when (ms, on the agent's monotonic clock). */
  readonly told: InstanceState;
  readonly since: number;
  readonly cause?: Cause;
  /** Between SIGTERM and SIGKILL, once it drains. */
  readonly graceMs?: number;
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
  /** @property instead what it had yet to do to be ready, for one that ended as if all were done: "listening on PORT" */
  | {
      readonly kind: "process-exited";
      readonly end: ProcessEnd;
      readonly cause?: Cause;
      readonly instead?: string;
    }
  /** @property drainMs how long the connections to it may take to end before the first signal */
  | { readonly kind: "stop"; readonly cause: Cause; readonly graceMs: number; readonly drainMs: number }
  /** Nobody is connected to it any more, or the time for that is over. */
  | { readonly kind: "drained" }
  | { readonly kind: "freeze"; readonly pageOut: boolean }
  /** Nothing of it runs. */
  | { readonly kind: "frozen"; readonly pagedOut: boolean }
  | { readonly kind: "not-frozen" }
  | { readonly kind: "thaw" }
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
  /** Look after it from now on, or no more. */
  | { readonly kind: "watch"; readonly on: boolean }
  /** Wait until nobody is connected, at most this long from now (the least of all that were asked); answers `drained`. */
  | { readonly kind: "drain"; readonly ms: number }
  /** Stop all its processes; answers `frozen` or `not-frozen`. */
  | { readonly kind: "freeze"; readonly pageOut: boolean }
  /** Let them run, at once. */
  | { readonly kind: "thaw" }
  /** End all its processes; answers `gone`. */
  | { readonly kind: "end"; readonly graceMs: number }
  /** SIGKILL no later than in `graceMs`. */
  | { readonly kind: "hurry"; readonly graceMs: number }
  /** A transition for the scheduler; the one to EXITED carries how it ended. */
  | {
      readonly kind: "tell";
      readonly from: InstanceState;
      readonly to: InstanceState;
      readonly fromMode: InstanceMode;
      readonly toMode: InstanceMode;
      readonly afterMs: number;
      /** Why it is to go, from DRAINING on. */
      readonly cause?: Cause;
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
 * @param now ms, on a monotonic clock that goes on under the next agent
 */
export function begin(now: number): Step {
  return {
    state: { phase: "pending", activity: "running", wakes: 0, told: InstanceState.PENDING, since: now },
    effects: [{ kind: "prepare" }],
  };
}

/**
 * An instance whose process was found alive by a new agent: it goes on where it was.
 * @param graceMs what is left until SIGKILL, if it was being stopped
 * @param isFrozen whether nothing of it runs
 */
export function resume(state: MachineState, graceMs: number, isFrozen: boolean, now: number): Step {
  switch (state.phase) {
    case "starting":
      return { state, effects: [{ kind: "probe" }] };
    case "stopping":
      return { state, effects: [{ kind: "settle" }, { kind: "end", graceMs }] };
    case "ready": {
      const settled: Step = { state, effects: [{ kind: "settle" }, { kind: "watch", on: true }] };
      if (state.activity !== "freezing" && isFrozen === isAtRest(state.activity)) return settled;
      // The agent died on the way to frozen or back: thawing is always safe.
      const thawed = activity(state, "running", now, [{ kind: "thaw" }]);
      return { ...thawed, effects: [...settled.effects, ...thawed.effects] };
    }
    case "draining":
      return { state, effects: [{ kind: "settle" }, { kind: "drain", ms: 0 }] };
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
    case "draining":
      return draining(state, input, now);
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
      return told(state, "ready", InstanceState.READY, now, [
        { kind: "settle" },
        { kind: "watch", on: true },
      ]);
    case "not-ready":
      return end(state, input.cause, failedStartGraceMs);
    case "process-exited": {
      const isClean = input.end.code === 0 && input.instead !== undefined;
      const how = isClean
        ? `it ended instead of ${input.instead}`
        : `${endText(input.end)} before it was ready`;
      const step = exitedByItself(state, input, how);
      return { ...step, effects: [{ kind: "cancel" }, ...step.effects] };
    }
    case "stop":
      return stop(state, input, now, [{ kind: "cancel" }]);
    default:
      return ignored(state);
  }
}

function ready(state: MachineState, input: Input, now: number): Step {
  const unwatch: Effect = { kind: "watch", on: false };
  switch (input.kind) {
    case "process-exited": {
      const step = exitedByItself(state, input, endText(input.end));
      return { ...step, effects: [unwatch, ...step.effects] };
    }
    case "stop":
      if (input.drainMs > 0 && !isAtRest(state.activity)) {
        const { cause, graceMs } = input;
        return told({ ...state, cause, graceMs }, "draining", InstanceState.DRAINING, now, [
          unwatch,
          { kind: "drain", ms: input.drainMs },
        ]);
      }
      return stop(state, input, now, [unwatch]);
    case "freeze":
      return {
        // One that is frozen may yet be paged out.
        state: state.activity === "running" ? { ...state, activity: "freezing" } : state,
        effects: [{ kind: "freeze", pageOut: input.pageOut }],
      };
    case "frozen": {
      // Thawed in between: what was stopped meanwhile runs on.
      if (state.activity === "running") return { state, effects: [{ kind: "thaw" }] };
      const pagedOut = input.pagedOut || state.activity === "paged-out";
      return activity(state, pagedOut ? "paged-out" : "frozen", now, []);
    }
    case "not-frozen":
      if (state.activity !== "freezing") return ignored(state);
      return { state: { ...state, activity: "running" }, effects: [{ kind: "thaw" }] };
    case "thaw": {
      const woken = { ...state, wakes: state.wakes + 1 };
      if (state.activity === "running") return { state: woken, effects: [] };
      return activity(woken, "running", now, [{ kind: "thaw" }]);
    }
    default:
      return ignored(state);
  }
}

function draining(state: MachineState, input: Input, now: number): Step {
  switch (input.kind) {
    case "drained":
      return told(state, "stopping", InstanceState.STOPPING, now, [
        { kind: "end", graceMs: state.graceMs ?? 0 },
      ]);
    case "process-exited": {
      // It was told to go, and went.
      const step = end({ ...state, end: input.end }, state.cause ?? { reason: ExitReason.UNKNOWN }, 0);
      return { ...step, effects: [{ kind: "cancel" }, ...step.effects] };
    }
    case "stop":
      // Whoever asks again without a drain will not wait for it.
      if (input.drainMs > 0) {
        const graceMs = Math.min(state.graceMs ?? 0, input.graceMs);
        return { state: { ...state, graceMs }, effects: [{ kind: "drain", ms: input.drainMs }] };
      }
      return stop(state, { ...input, cause: state.cause ?? input.cause }, now, [{ kind: "cancel" }]);
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
  const step = told({ ...state, cause: input.cause }, "stopping", InstanceState.STOPPING, now, [
    ...first,
    { kind: "end", graceMs: input.graceMs },
  ]);
  // It is thawed to hear of it.
  return { ...step, state: { ...step.state, activity: "running" } };
}

/** Nobody told it to go, so that STOPPING is not told: the next that is heard of it is EXITED. */
function end(state: MachineState, cause: Cause, graceMs: number): Step {
  return { state: { ...state, phase: "stopping", cause }, effects: [{ kind: "end", graceMs }] };
}

function exitedByItself(
  state: MachineState,
  input: Extract<Input, { kind: "process-exited" }>,
  message: string,
): Step {
  const { end: how, cause } = input;
  const clean = how.code === 0;
  const step = end(
    state,
    cause ?? {
      reason: clean ? ExitReason.EXITED_CLEAN : ExitReason.CRASHED,
      message,
    },
    0, // its children have lost their parent: nothing of it can serve
  );
  return { ...step, state: { ...step.state, end: how } };
}

function endText({ signal, code }: ProcessEnd): string {
  return signal ? `ended by ${signal}` : `exited with code ${code ?? "unknown"}`;
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
    fromMode: modeOf(state),
    toMode: to === InstanceState.READY ? InstanceMode.ACTIVE : InstanceMode.UNSPECIFIED,
    // What an older version or another boot left may be ahead of the clock.
    afterMs: Math.max(0, now - state.since),
    ...(state.cause ? { cause: state.cause } : {}),
    ...(exit ? { exit } : {}),
  };
  return { state: { ...state, phase, told: to, since: now }, effects: [tell, ...then] };
}

/** A change of what it does while it stays READY; told where it shows from outside. */
function activity(state: MachineState, to: Activity, now: number, then: readonly Effect[]): Step {
  const next = { ...state, activity: to };
  const [fromMode, toMode] = [modeOf(state), modeOf(next)];
  if (fromMode === toMode) return { state: next, effects: then };
  const afterMs = Math.max(0, now - state.since);
  const tell: Effect = { kind: "tell", from: state.told, to: state.told, fromMode, toMode, afterMs };
  // First the deed: a thaw must not wait for its record.
  return { state: { ...next, since: now }, effects: [...then, tell] };
}

/** Whether nothing of it runs, as far as is known. */
export function isAtRest(activity: Activity): boolean {
  return activity === "frozen" || activity === "paged-out";
}

/** Whether it tells of one that was at rest and runs again: no repeat of a thaw, and no end. */
export function isThaw(tell: Extract<Effect, { kind: "tell" }>): boolean {
  const { fromMode, toMode } = tell;
  return (
    toMode === InstanceMode.ACTIVE &&
    (fromMode === InstanceMode.FROZEN || fromMode === InstanceMode.PAGED_OUT)
  );
}

/** What the scheduler is told of what it does. */
export function modeOf(state: MachineState): InstanceMode {
  if (state.told !== InstanceState.READY) return InstanceMode.UNSPECIFIED;
  switch (state.activity) {
    case "frozen":
      return InstanceMode.FROZEN;
    case "paged-out":
      return InstanceMode.PAGED_OUT;
    default:
      return InstanceMode.ACTIVE;
  }
}

function ignored(state: MachineState): Step {
  return { state, effects: [] };
}
