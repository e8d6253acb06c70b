/** How a scheduler persists, as state-writer.ts does it: one append at a time, in order; callers wait a while and no longer. */
import type { Write } from "@warren/scheduler/core/effects";
import type { Actor } from "./actor.ts";
import type { Store } from "./store.ts";

const deadlineMs = 10_000;

interface Waiting {
  readonly write: Write;
  readonly settle: (durable: boolean) => void;
  expired: boolean;
}

export class Writer {
  #queue: Waiting[] = [];
  #running = false;

  constructor(
    private readonly owner: Actor,
    private readonly epoch: bigint,
    private readonly store: Store,
    private readonly onStale: () => void,
  ) {}

  get isIdle(): boolean {
    return this.#queue.length === 0;
  }

  append(write: Write, nobodyWaits: boolean, settled: (durable: boolean) => void): void {
    let open = true;
    const waiting: Waiting = {
      write,
      expired: false,
      settle: (durable) => {
        if (!open) return;
        open = false;
        settled(durable);
      },
    };
    if (!nobodyWaits) {
      this.owner.after(deadlineMs, () => {
        waiting.expired = true;
        waiting.settle(false);
      });
    }
    this.#queue.push(waiting);
    this.#next();
  }

  #next(): void {
    if (this.#running) return;
    while (this.#queue[0]?.expired) this.#queue.shift();
    const waiting = this.#queue[0];
    if (!waiting) return;
    this.#running = true;
    const done = (taken: boolean): void => {
      this.#running = false;
      if (!taken) {
        const left = this.#queue;
        this.#queue = [];
        for (const one of left) one.settle(false);
        this.onStale();
        return;
      }
      this.#queue.shift();
      waiting.settle(true);
      this.#next();
    };
    this.store.append(this.epoch, waiting.write, this.owner.whileAlive(done));
  }
}
