/**
 * Holds requests while their tenant wakes: one Ensure per tenant, however many wait (DESIGN rule 4), and never more
 * waiting than the bounds say (rule 9).
 */
import type { SchedulerLink } from "./link.ts";
import { RefusedError, tooLate } from "./refusal.ts";
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
}

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
    const { table, link, deadlineMs } = this.#options;
    const abort = new AbortController();
    const asked = table.tick;
    const answered = link
      .ensure(tenant, { signal: abort.signal, deadlineMs })
      .then((response) => table.learn(response, asked))
      .finally(() => {
        if (this.#wakes.get(tenant) === wake) this.#wakes.delete(tenant);
      });
    answered.catch(() => {}); // everyone who waits hears of it; the last may have left
    const wake: Wake = { answered, abort, waiting: 0 };
    this.#wakes.set(tenant, wake);
    return wake;
  }
}
