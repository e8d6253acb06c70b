/** Watches that an instance still serves: the shell around `liveness.ts`. */
import { type Clock, pause, systemClock } from "@warren/common/time";
import { ask, type HttpTarget } from "./ask.ts";
import {
  beginLiveness,
  type LivenessInput,
  type LivenessPolicy,
  lookEveryMs,
  stepLiveness,
} from "./liveness.ts";

export interface WatchOptions {
  readonly target: HttpTarget;
  readonly policy: LivenessPolicy;
  /** How long the instance has been ready, ms: more than 0 for one that was adopted. */
  readonly readyForMs?: number;
  /** Whether it is frozen now. */
  isPaused(): boolean;
  /** Called at most once, with one sentence of what was seen last. */
  onUnhealthy(message: string): void;
  readonly clock?: Clock;
  /** Uniform in [0, 1). */
  readonly random?: () => number;
}

export interface LivenessWatch {
  /** A heartbeat has come. */
  beat(): void;
}

/** Watches until the signal aborts or the instance is unhealthy. */
export function watchLiveness(options: WatchOptions, signal: AbortSignal): LivenessWatch {
  const { policy, clock = systemClock, random = Math.random } = options;
  let state = beginLiveness(policy, clock.monotonic(), options.readyForMs ?? 0, random());

  const feed = (input: LivenessInput) => {
    if (signal.aborted) return;
    const step = stepLiveness(policy, state, input, clock.monotonic());
    state = step.state;
    if (step.todo?.kind === "probe") void probe();
    if (step.todo?.kind === "unhealthy") options.onUnhealthy(step.todo.message);
  };
  const probe = async () => {
    const answer = await ask(options.target, policy.path, policy.timeoutMs, signal);
    feed({ kind: "answer", answer, paused: options.isPaused() });
  };
  const look = async () => {
    const every = lookEveryMs(policy);
    // So that the looks at many that were adopted at once are spread as well.
    for (let wait = random() * every; !signal.aborted && !state.told; wait = every) {
      await pause(wait, signal);
      feed({ kind: "look", paused: options.isPaused() });
    }
  };
  void look();
  return { beat: () => feed({ kind: "beat" }) };
}
