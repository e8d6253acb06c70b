/** One request in flight at one instance: begun when it is made, ended exactly once. */
import type { Route } from "./route.ts";
import type { EndpointTable } from "./table.ts";

export class Lease {
  #ended = false;

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

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.table.end(this.route)) this.onDrained();
  }
}
