/**
 * Finds the instance for a request, waking its tenant if need be, and again when an instance turns out to be gone.
 *
 * D1  The hot path makes no RPC: a known open instance is taken from the table.
 * D2  A request gets exactly one answer by its deadline (rule 4): everything below has one bound in time and one in tries.
 * D3  A request is given to an instance again only while that cannot do anything twice.
 */
import { pause } from "@warren/common/time";
import { Lease } from "./lease.ts";
import type { GatewayMetrics } from "./metrics.ts";
import { isCutOff, RefusedError, tooLate } from "./refusal.ts";
import type { Rouser } from "./rouser.ts";
import type { Route } from "./route.ts";
import type { EndpointTable } from "./table.ts";
import type { Traffic } from "./traffic.ts";
import type { Wakes } from "./wakes.ts";

/** An instance did not take a request. */
export class NotTakenError extends Error {
  override readonly name = "NotTakenError";
  /** @param repeatable whether the request may be given to an instance again (D3) */
  constructor(
    readonly repeatable: boolean,
    message: string,
  ) {
    super(message);
  }
}

export interface DispatchOptions {
  readonly table: EndpointTable;
  readonly traffic: Pick<Traffic, "reached" | "sent">;
  readonly wakes: Wakes;
  readonly metrics: GatewayMetrics;
  readonly holdDeadlineMs: number;
  readonly rouser: Pick<Rouser, "isNeeded" | "rouse">;
  /** The last request at a withdrawn instance ended. */
  readonly onDrained: () => void;
}

const maxTries = 4;

export class Dispatch {
  constructor(private readonly options: DispatchOptions) {}

  /**
   * Has `send` give the request to an instance, at most {@link maxTries} times. From a successful `send` on, the lease
   * is its: to be ended when the answer has gone.
   * @throws RefusedError, LeftError, or what the scheduler answered
   */
  async to<T>(tenant: string, signal: AbortSignal, send: (lease: Lease) => Promise<T>): Promise<T> {
    const { table, traffic, metrics, holdDeadlineMs, onDrained } = this.options;
    const deadline = performance.now() + holdDeadlineMs;
    for (let attempt = 1; ; attempt++) {
      const route = table.pick(tenant) ?? (await this.#wake(tenant, signal, deadline));
      const lease = new Lease(route, table, traffic, onDrained);
      try {
        return await this.#send(lease, send);
      } catch (error) {
        lease.end();
        if (!(error instanceof NotTakenError)) throw error;
        table.suspect(route);
        if (!error.repeatable || attempt >= maxTries || signal.aborted) throw gone(tenant, error);
        metrics.repeated();
        // The scheduler may not know yet that the instance died: not all of the tries in one millisecond.
        await pause(Math.min(10 * 5 ** (attempt - 1), deadline - performance.now()), signal);
      }
    }
  }

  /** First the request, then the thaw (R1). */
  async #send<T>(lease: Lease, send: (lease: Lease) => Promise<T>): Promise<T> {
    const { rouser } = this.options;
    const sending = send(lease);
    if (!rouser.isNeeded(lease.route)) return sending;
    const answered = new AbortController();
    const failed = new Promise<never>((_, reject) => {
      rouser.rouse(lease.route, answered.signal).catch((error: Error) => {
        lease.cut(error);
        reject(error);
      });
    });
    failed.catch(() => {});
    // A stream may be open for long after its answer has begun: it is kept awake until its end.
    lease.onEnd(() => answered.abort());
    return Promise.race([sending, failed]);
  }

  /** Holds the request until the tenant has an instance. */
  async #wake(tenant: string, signal: AbortSignal, deadline: number): Promise<Route> {
    const { table, wakes, metrics } = this.options;
    const start = performance.now();
    for (let wait = 1; ; wait = Math.min(100, wait * 2)) {
      const left = deadline - performance.now();
      if (left <= 0) throw new RefusedError(tooLate(tenant));
      try {
        const route = await wakes.wake(tenant, signal, left);
        // Others that waited for the same answer ran before: it may have been sealed or withdrawn in between.
        if (route?.standing === "open") {
          metrics.woke(performance.now() - start);
          return route;
        }
      } catch (error) {
        if (!isCutOff(error)) throw error;
        const known = table.pick(tenant, true);
        if (known) return known;
        throw error;
      }
      // The answer was older than what the watch has told since.
      await pause(wait, signal);
    }
  }
}

function gone(tenant: string, error: NotTakenError): RefusedError {
  const message = error.repeatable
    ? `no instance of "${tenant}" takes connections`
    : `"${tenant}" broke off before it answered; the request may have been carried out and was not repeated`;
  return new RefusedError({ status: 502, error: "bad-gateway", message });
}
