/** One request in flight at one instance: begun when it is made, ended exactly once. */
import type { Route } from "./route.ts";
import type { EndpointTable } from "./table.ts";

export class Lease {
  #ended = false;
  readonly #cut = new AbortController();
  readonly #afterwards: (() => void)[] = [];

  /** @param onDrained the last request at a withdrawn instance ended: somebody waits for that word */
  constructor(
    readonly route: Route,
    private readonly table: EndpointTable,
    private readonly onDrained: () => void,
  ) {
    table.begin(route);
  }

  /** The instance has begun to answer, on a connection that is kept. */
  answered(): void {
    this.route.pooled = true;
  }

  /** Body bytes went to the client. */
  sent(bytes: number): void {
    this.table.sent(this.route, bytes);
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
