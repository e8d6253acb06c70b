/**
 * Holds requests while their tenant wakes: one Ensure per tenant, however many wait (DESIGN rule 4), and never more
 * waiting than the bounds say (rule 9).
 */
import { backoff, pause } from "@warren/common/time";
import type { SchedulerLink } from "./link.ts";
import { backoffOf, isCutOff, RefusedError, tooLate } from "./refusal.ts";
import type { Route } from "./route.ts";
import type { EndpointTable } from "./table.ts";

export interface WakeOptions {
  readonly table: EndpointTable;
  readonly link: Pick<SchedulerLink, "ensure">;
  /** Most requests that wait for one tenant. */
  readonly maxHeldPerTenant: number;
  /** Most requests that wait. */
  readonly maxHeld: number;
  /** Deadline of one Ensure. */
  readonly deadlineMs: number;
  /** How long it is asked again when no scheduler can be reached, where no instance is known either. */
  readonly absenceMs: number;
}

/** A tenant that failed may be started again so soon: who asks for it is held until then, rather than refused. */
const longestBackoffMs = 3_000;
/** Between two tries at the least, whatever the scheduler says. */
const leastBackoffMs = 10;

interface Wake {
  readonly answered: Promise<Route | undefined>;
  readonly abort: AbortController;
  waiting: number;
}

/** The client went away while its request was held. */
export class LeftError extends Error {
  override readonly name = "LeftError";
}

export class Wakes {
  readonly #options: WakeOptions;
  readonly #wakes = new Map<string, Wake>();
  #held = 0;

  constructor(options: WakeOptions) {
    this.#options = options;
  }

  /** Requests that wait now. */
  get held(): number {
    return this.#held;
  }

  /**
   * Waits until the tenant has an instance.
   * @param signal of the client's request; one that aborts is dropped, and the last one takes the Ensure with it
   * @returns the instance; undefined when the answer was older than what is known: ask again
   * @throws RefusedError over a bound or past `deadlineMs`, LeftError, or what the scheduler answered
   */
  async wake(tenant: string, signal: AbortSignal, deadlineMs: number): Promise<Route | undefined> {
    const wake = this.#join(tenant);
    this.#held++;
    let left = () => {};
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await Promise.race([
        wake.answered,
        new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(new RefusedError(tooLate(tenant))), deadlineMs);
          left = () => reject(new LeftError("the client went away"));
          if (signal.aborted) left();
          else signal.addEventListener("abort", left, { once: true });
        }),
      ]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", left);
      this.#held--;
      if (--wake.waiting === 0) {
        wake.abort.abort();
        if (this.#wakes.get(tenant) === wake) this.#wakes.delete(tenant);
      }
    }
  }

  #join(tenant: string): Wake {
    const { maxHeld, maxHeldPerTenant } = this.#options;
    const running = this.#wakes.get(tenant);
    if (this.#held >= maxHeld || (running && running.waiting >= maxHeldPerTenant)) {
      const message = `too many requests wait for ${this.#held >= maxHeld ? "tenants" : `"${tenant}"`} to start`;
      throw new RefusedError({ status: 503, error: "too-many-waiting", message, retryAfter: 1 });
    }
    const wake = running ?? this.#start(tenant);
    wake.waiting++;
    return wake;
  }

  #start(tenant: string): Wake {
    const abort = new AbortController();
    const answered = this.#ensure(tenant, abort.signal).finally(() => {
      if (this.#wakes.get(tenant) === wake) this.#wakes.delete(tenant);
    });
    answered.catch(() => {}); // everyone who waits hears of it; the last may have left
    const wake: Wake = { answered, abort, waiting: 0 };
    this.#wakes.set(tenant, wake);
    return wake;
  }

  /** A scheduler that is started again is away for a moment: who waits for a cold tenant can wait for that, too. */
  async #ensure(tenant: string, signal: AbortSignal): Promise<Route | undefined> {
    const { table, link, deadlineMs, absenceMs } = this.#options;
    const start = performance.now();
    for (let attempt = 0; ; attempt++) {
      const asked = table.tick;
      try {
        const left = deadlineMs - (performance.now() - start);
        return table.learn(await link.ensure(tenant, { signal, deadlineMs: left }), asked);
      } catch (error) {
        const delay = backoffOf(error);
        const left = deadlineMs - (performance.now() - start);
        if (delay !== undefined && delay <= Math.min(longestBackoffMs, left)) {
          await pause(Math.max(leastBackoffMs, delay), signal);
          continue;
        }
        const over = performance.now() - start >= Math.min(absenceMs, deadlineMs);
        if (!isCutOff(error) || over || signal.aborted || table.pick(tenant, true)) throw error;
        await pause(backoff({ baseMs: 50, maxMs: 500, attempt, random: Math.random }), signal);
      }
    }
  }
}
