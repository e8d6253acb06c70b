/**
 * The scheduler's own events on their way to the journal: in order, resent under the same id until stored. Bounded:
 * when the journal is away for long the oldest are dropped and counted, since they tell of decisions and bill nothing.
 */
import { type EventStyle, encodeEvent } from "@warren/common/cloudevents";
import type { Logger } from "@warren/common/log";
import { backoff, pause } from "@warren/common/time";
import type { Journal, JournalRecord } from "@warren/store";
import type { Effect } from "./core/effects.ts";

type Payload = Extract<Effect, { type: "event" }>["payload"];

const limit = 10_000;
const batchSize = 64;

export class Outbox {
  readonly #queue: JournalRecord[] = [];
  readonly #stop = new AbortController();
  readonly #journal: Journal;
  readonly #source: string;
  readonly #style: EventStyle;
  readonly #epoch: bigint;
  readonly #log: Logger;
  #seq = 0;
  #running: Promise<void> | undefined;
  dropped = 0;

  constructor(options: { journal: Journal; source: string; epoch: bigint; style: EventStyle; log: Logger }) {
    this.#journal = options.journal;
    this.#source = options.source;
    this.#style = options.style;
    this.#epoch = options.epoch;
    this.#log = options.log;
  }

  /** The epoch rises with each lease, so that it serves as the producer's incarnation. */
  publish(tenant: string, payload: Payload, time: number): void {
    const id = `${this.#source}:${this.#epoch}:${++this.#seq}`;
    if (this.#queue.length >= limit) {
      this.#queue.shift();
      if (this.dropped++ === 0)
        this.#log.warn("the journal is away: the oldest of the scheduler's own events are dropped");
    }
    this.#queue.push(encodeEvent({ id, source: this.#source, time, tenant, payload }, this.#style));
    this.#start();
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // An event may have come between the end of the last batch and this.
      if (this.#queue.length && !this.#stop.signal.aborted) this.#start();
    });
  }

  /** Gives what is queued a last chance of `deadlineMs`. */
  async stop(deadlineMs: number): Promise<void> {
    const limit = new AbortController();
    await Promise.race([this.#running, pause(deadlineMs, limit.signal)]);
    limit.abort();
    this.#stop.abort();
  }

  async #run(): Promise<void> {
    for (let attempt = 0; this.#queue.length && !this.#stop.signal.aborted; ) {
      const batch = this.#queue.slice(0, batchSize);
      try {
        await this.#journal.append(batch, { deadlineMs: 5_000 });
        const stored = new Set(batch);
        // Some of the batch may have been dropped from the front meanwhile.
        while (this.#queue[0] && stored.has(this.#queue[0])) this.#queue.shift();
        attempt = 0;
      } catch (error) {
        if (attempt === 0) this.#log.warn({ err: error }, "the journal does not take events; trying on");
        await pause(
          backoff({ baseMs: 100, maxMs: 5_000, attempt: attempt++, random: Math.random }),
          this.#stop.signal,
        );
      }
    }
  }
}
