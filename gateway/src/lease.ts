/** One request in flight at one instance: begun when it is made, ended exactly once. */
import type { Route } from "./route.ts";
import type { EndpointTable } from "./table.ts";
import type { Traffic } from "./traffic.ts";

export class Lease {
  #ended = false;
  #reached = false;
  readonly #cut = new AbortController();
  readonly #afterwards: (() => void)[] = [];

  /** @param onDrained the last request at a withdrawn instance ended: somebody waits for that word */
  constructor(
    readonly route: Route,
    private readonly table: EndpointTable,
    private readonly traffic: Pick<Traffic, "reached" | "sent">,
    private readonly onDrained: () => void,
  ) {
    table.begin(route);
  }

  /** The instance has begun to answer, on a connection that is kept. */
  answered(): void {
    this.route.pooled = true;
    this.route.doubted = false;
  }

  /** The instance has the request, or may have it: from now on it counts, once. */
  reached(): void {
    if (this.#reached) return;
    this.#reached = true;
    this.traffic.reached(this.route.tenant);
  }

  /** Body bytes go to the client: counted as they go, since a stream may stay open for days (rule 8). */
  sent(bytes: number): void {
    this.traffic.sent(this.route.tenant, bytes);
  }

  /** Aborts, with the reason, when the request cannot be answered there. */
  get signal(): AbortSignal {
    return this.#cut.signal;
  }

  /** Gives the request up. */
  cut(reason: Error): void {
    this.#cut.abort(reason);
  }

  /** Called at its end. */
  onEnd(then: () => void): void {
    if (this.#ended) then();
    else this.#afterwards.push(then);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const then of this.#afterwards) then();
    if (this.table.end(this.route)) this.onDrained();
  }
}
