/**
 * Wakes sleeping instances: asks the agent of their node to thaw them, with the scheduler up or down (DESIGN "Sleeping").
 *
 * R1  The request is given to the instance first and the thaw asked for second: the kernel keeps what the instance cannot
 *     read yet, so that waking costs no round trip before the request is under way.
 * R2  One thaw of an instance is under way at a time; while the watch is down, whoever comes meanwhile has one more made
 *     after it.
 * R3  While a request is in flight at an instance that is known to sleep, or of which nobody can tell since the watch is
 *     down, its thaw is asked for again and again: the request waits for the agent, bounded by its own deadline.
 */
import { backoff, pause } from "@warren/common/time";
import type { GatewayMetrics } from "./metrics.ts";
import { RefusedError } from "./refusal.ts";
import type { Route } from "./route.ts";

/** How an agent answered. `gone`: it does not have the instance any more. */
export type Thaw = "thawed" | "full" | "gone" | "unreachable";

export interface RouserOptions {
  readonly thaw: (route: Route) => Promise<Thaw>;
  /** Whether what is known of instances may be out of date. */
  readonly isStale: () => boolean;
  /** How long a request waits for a sleeping instance. */
  readonly deadlineMs: number;
  readonly metrics: Pick<GatewayMetrics, "thawed">;
}

/** Between two thaws of an instance that nobody can tell to be awake, in ms. */
const staleAgainMs = 500;

export class Rouser {
  readonly #options: RouserOptions;
  readonly #rousing = new Map<string, { again: boolean; readonly ended: Promise<Thaw> }>();

  constructor(options: RouserOptions) {
    this.#options = options;
  }

  /** Instances being woken now. */
  get size(): number {
    return this.#rousing.size;
  }

  /** Whether a request at that instance needs somebody to wake it, as far as is known. */
  isNeeded(route: Route): boolean {
    return route.asleep || this.#options.isStale();
  }

  /**
   * Sees to it that a request in flight there is read. Settles when it is awake, or at the signal.
   * @throws RefusedError when it could not be woken in time
   */
  async rouse(route: Route, signal: AbortSignal): Promise<void> {
    const { deadlineMs, isStale } = this.#options;
    const start = performance.now();
    for (let attempt = 0; !signal.aborted; attempt++) {
      const wasAsleep = route.asleep;
      const thaw = await this.#once(route);
      if (signal.aborted || thaw === "gone") return; // its connection breaks, and says more
      if (thaw === "thawed") {
        if (!isStale()) return;
        // Nobody tells when it is frozen again: as long as the request is open, it is kept awake.
        attempt = 0;
        await pause(staleAgainMs, signal);
        continue;
      }
      // An agent that is down leaves what was awake awake: only one known to sleep is waited for.
      if (wasAsleep && performance.now() - start >= deadlineMs) throw new RefusedError(notWoken(route, thaw));
      await pause(backoff({ baseMs: 20, maxMs: 1_000, attempt, random: Math.random }), signal);
    }
  }

  #once(route: Route): Promise<Thaw> {
    const running = this.#rousing.get(route.id);
    if (running) {
      // While the watch stands, the thaw under way will do: it is not undone unseen.
      running.again = this.#options.isStale();
      return running.ended;
    }
    const entry = { again: false, ended: this.#run(route) };
    this.#rousing.set(route.id, entry);
    return entry.ended;
  }

  async #run(route: Route): Promise<Thaw> {
    const { thaw, metrics } = this.#options;
    for (;;) {
      const start = performance.now();
      const version = route.version;
      const outcome = await thaw(route);
      metrics.thawed(outcome, performance.now() - start);
      // What the scheduler has said since is newer.
      if (outcome === "thawed" && route.version === version) route.asleep = false;
      const entry = this.#rousing.get(route.id);
      if (outcome === "thawed" && entry?.again) {
        entry.again = false;
        continue;
      }
      this.#rousing.delete(route.id);
      return outcome;
    }
  }
}

function notWoken({ tenant, node }: Route, why: Thaw) {
  const reason = why === "full" ? "has as many awake as it may" : "does not answer";
  const message = `"${tenant}" sleeps, and the agent of node ${node} ${reason}`;
  return { status: 503, error: "not-woken", message, retryAfter: 1 };
}
