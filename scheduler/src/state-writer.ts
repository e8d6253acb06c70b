/**
 * Appends to the state log, one at a time and in order, each expecting the sequence of the one before. An append whose
 * outcome is not known blocks those behind it until it is known: with another expectation it could not be told from
 * another scheduler's. Callers stop waiting at their deadline; the append goes on.
 */
import type { Logger } from "@warren/common/log";
import { backoff, pause } from "@warren/common/time";
import { StaleWriterError, type StateLog, StoreInputError } from "@warren/store";
import type { Entry } from "./records.ts";

interface Waiting {
  readonly entry: Entry;
  readonly settle: (error?: Error) => void;
  /** Its caller has given up: it need not be appended, unless that was tried already. */
  expired: boolean;
}

export interface StateWriterOptions {
  readonly state: StateLog;
  readonly lastSeq: bigint;
  readonly log: Logger;
  /** Another scheduler has taken over: command nothing any more. */
  readonly onStale: (error: Error) => void;
  /** How long a caller waits, in ms. */
  readonly deadlineMs?: number;
  /** Most appends that may wait. */
  readonly limit?: number;
}

export class StateWriter {
  readonly #options: StateWriterOptions;
  readonly #queue: Waiting[] = [];
  readonly #stop = new AbortController();
  #lastSeq: bigint;
  #running: Promise<void> | undefined;

  constructor(options: StateWriterOptions) {
    this.#options = options;
    this.#lastSeq = options.lastSeq;
  }

  /**
   * Resolves when the entry is durable.
   * @param nobodyWaits it is written whenever the store takes it: no caller would try again
   * @throws Error when that is not known by the deadline, too many wait, or the entry is over a bound
   */
  append(entry: Entry, nobodyWaits = false): Promise<void> {
    const { deadlineMs = 10_000, limit = 10_000 } = this.#options;
    if (this.#stop.signal.aborted) return Promise.reject(new Error("the scheduler is stopping"));
    if (this.#queue.length >= limit) return Promise.reject(new Error(`${limit} writes wait for the store`));
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        entry,
        expired: false,
        settle: (error) => {
          clearTimeout(timer);
          if (error) reject(error);
          else resolve();
        },
      };
      const timer = nobodyWaits
        ? undefined
        : setTimeout(() => {
            waiting.expired = true;
            this.#drop(waiting);
            reject(new Error(`the store has not confirmed ${entry.key} within ${deadlineMs} ms`));
          }, deadlineMs);
      this.#queue.push(waiting);
      this.#start();
    });
  }

  /** One that nobody waits for takes no place in the queue, unless it may be on its way. */
  #drop(waiting: Waiting): void {
    const i = this.#queue.indexOf(waiting);
    if (i > 0) this.#queue.splice(i, 1);
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // Whoever heard that the last append is durable may have made the next one before this.
      if (this.#queue.length && !this.#stop.signal.aborted) this.#start();
    });
  }

  /** Waits for the append under way, at most `deadlineMs`; those behind it fail. */
  async stop(deadlineMs: number): Promise<void> {
    const running = this.#running;
    const limit = new AbortController();
    await Promise.race([running, pause(deadlineMs, limit.signal)]);
    limit.abort();
    this.#stop.abort();
    for (const waiting of this.#queue.splice(0)) waiting.settle(new Error("the scheduler is stopping"));
  }

  async #run(): Promise<void> {
    const { state, log, onStale } = this.#options;
    while (this.#queue.length && !this.#stop.signal.aborted) {
      const waiting = this.#queue[0]!;
      if (waiting.expired) {
        this.#queue.shift();
        continue;
      }
      for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
        try {
          this.#lastSeq = await state.append(waiting.entry.key, waiting.entry.value, this.#lastSeq, {
            deadlineMs: 5_000,
          });
          this.#queue.shift();
          waiting.settle();
          break;
        } catch (error) {
          if (error instanceof StaleWriterError) {
            this.#stop.abort();
            onStale(error);
            for (const w of this.#queue.splice(0)) w.settle(error);
            return;
          }
          if (error instanceof StoreInputError) {
            this.#queue.shift();
            waiting.settle(error);
            break;
          }
          if (attempt === 0)
            log.warn({ err: error, key: waiting.entry.key }, "the store does not take writes; trying on");
          await pause(backoff({ baseMs: 50, maxMs: 2_000, attempt, random: Math.random }), this.#stop.signal);
        }
      }
    }
  }
}
