/** Streams of endpoint changes to gateways, each with a bounded queue: who cannot follow is cut, and begins anew. */
import { create } from "@bufbuild/protobuf";
import { Code, rpcError } from "@warren/common/rpc/errors";
import {
  EndpointUpdate,
  EndpointVersionSchema,
  type WatchEndpointsResponse,
  WatchEndpointsResponseSchema,
} from "@warren/proto/scheduler";
import type { EndpointMessage } from "./core/effects.ts";

const queueLimit = 10_000;

/** So often a quiet watch says that it is alive, in ms. */
export const heartbeatMs = 2_000;

class Watcher {
  readonly queue: WatchEndpointsResponse[] = [];
  overflowed = false;
  wake: () => void = () => {};

  /** What it was told when it came, one message for each node, is not for its being slow. */
  #snapshot = 0;

  pushSnapshot(message: WatchEndpointsResponse): void {
    this.#snapshot++;
    this.push(message);
  }

  push(message: WatchEndpointsResponse): void {
    if (this.queue.length >= queueLimit + this.#snapshot) this.overflowed = true;
    else this.queue.push(message);
    this.wake();
  }
}

export class Watchers {
  readonly #epoch: bigint;
  /** By watch; several may have the same watcher's id, while an old connection lingers. */
  readonly #watchers = new Map<Watcher, string>();
  #closed = false;

  constructor(epoch: bigint) {
    this.#epoch = epoch;
  }

  /** Delivers to the newest watch of `to`, or to all. */
  deliver(message: EndpointMessage, to?: string): void {
    const response = this.#encode(message);
    if (to === undefined) {
      for (const watcher of this.#watchers.keys()) watcher.push(response);
      return;
    }
    let newest: Watcher | undefined;
    for (const [watcher, id] of this.#watchers) if (id === to) newest = watcher;
    newest?.pushSnapshot(response);
  }

  /**
   * @param opened called once messages are taken, so that nothing falls between snapshot and changes
   * @throws ConnectError RESOURCE_EXHAUSTED when the reader does not keep up
   */
  async *watch(id: string, signal: AbortSignal, opened: () => void): AsyncGenerator<WatchEndpointsResponse> {
    const watcher = new Watcher();
    this.#watchers.set(watcher, id);
    const heartbeat = setInterval(() => {
      if (watcher.queue.length === 0) watcher.push(this.#message(EndpointUpdate.HEARTBEAT, 0));
    }, heartbeatMs);
    const wake = () => watcher.wake();
    signal.addEventListener("abort", wake, { once: true });
    try {
      opened();
      watcher.push(this.#message(EndpointUpdate.HEARTBEAT, 0));
      while (!signal.aborted && !this.#closed) {
        if (watcher.overflowed) {
          throw rpcError(
            Code.ResourceExhausted,
            `more than ${queueLimit} changes wait for this watcher: watch anew`,
          );
        }
        const next = watcher.queue.shift();
        if (next) yield next;
        else {
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
        }
      }
    } finally {
      clearInterval(heartbeat);
      signal.removeEventListener("abort", wake);
      this.#watchers.delete(watcher);
    }
  }

  /** Ends all watches. */
  close(): void {
    this.#closed = true;
    for (const watcher of this.#watchers.keys()) watcher.wake();
  }

  #message(update: EndpointUpdate, n: number): WatchEndpointsResponse {
    const version = create(EndpointVersionSchema, { epoch: this.#epoch, n: BigInt(n) });
    return create(WatchEndpointsResponseSchema, { update, version });
  }

  #encode(message: EndpointMessage): WatchEndpointsResponse {
    if (message.update === "complete") {
      const response = this.#message(EndpointUpdate.COMPLETE, message.n);
      response.node = message.node;
      response.agentUrl = message.agentUrl;
      response.endpoints = [...message.endpoints];
      return response;
    }
    const response = this.#message(EndpointUpdate.INCREMENTAL, message.n);
    response.endpoints = [...message.endpoints];
    response.withdrawn = [...message.withdrawn];
    return response;
  }
}
