/**
 * Follows until it can lead, leads until its lease is over, and follows again. Between two terms nothing is kept but what
 * the store holds, so that a scheduler that has lost its lease need not be started again.
 */
import type { Logger } from "@warren/common/log";
import { backoff, pause } from "@warren/common/time";
import { type Lease, type Store, StoreUnavailableError } from "@warren/store";
import type { Leadership } from "./leadership.ts";
import { Term, type TermOptions } from "./term.ts";

export interface CampaignOptions extends Omit<TermOptions, "lease"> {
  readonly store: Store;
  readonly leadership: Leadership;
  /** Where others reach this scheduler. */
  readonly address: string;
  readonly log: Logger;
}

/** A term that lasted so long was none of a series of failures. */
const soundTermMs = 30_000;
const retry = { baseMs: 100, maxMs: 5_000, random: Math.random };

export class Campaign {
  readonly #options: CampaignOptions;
  readonly #stop = new AbortController();
  readonly #settled = Promise.withResolvers<void>();
  readonly #ended: Promise<void>;

  /** @param onFatal told when it can go on no more: the state cannot be read, the lease is none */
  constructor(options: CampaignOptions, onFatal: (error: Error) => void) {
    this.#options = options;
    this.#settled.promise.catch(() => {}); // who starts it need not wait for it
    this.#ended = this.#run().catch((error: Error) => {
      this.#settled.reject(error);
      onFatal(error);
    });
  }

  /** Resolves once it leads or knows whom it follows; rejects when it can do neither. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Gives the lead up in order, so that the next one need not wait. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { store, leadership, name, address, log } = this.#options;
    const { signal } = this.#stop;
    let atLeast = 0n;
    for (let attempt = 0; !signal.aborted; ) {
      let lease: Lease;
      try {
        lease = await store.acquireLease({
          holder: name,
          address,
          atLeast,
          signal,
          onWaiting: (leader) => {
            log.info({ ...leader, epoch: `${leader.epoch}` }, "another scheduler leads; following it");
            leadership.follow(leader);
            this.#settled.resolve();
          },
        });
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      const began = performance.now();
      const highest = await this.#lead(lease);
      if (highest > atLeast) atLeast = highest;
      if (performance.now() - began > soundTermMs) attempt = 0;
      await pause(backoff({ ...retry, attempt: attempt++ }), signal);
    }
  }

  /** One term, to its end. @returns the highest epoch heard of */
  async #lead(lease: Lease): Promise<bigint> {
    const { leadership, store, config, log } = this.#options;
    const epoch = `${lease.epoch}`;
    leadership.follow(); // whoever led before leads no more
    let term: Term | undefined;
    try {
      term = await Term.begin({ ...this.#options, lease });
      leadership.lead(term);
      log.info({ epoch, store: store.kind, maxConcurrent: config.maxConcurrent }, "this scheduler leads");
      this.#settled.resolve();
      await aborted(term.over, this.#stop.signal);
      if (!this.#stop.signal.aborted)
        log.warn({ err: term.over.reason, epoch }, "this scheduler's lease is over; it follows from here on");
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error;
      log.warn({ err: error, epoch }, "the state cannot be loaded; giving the lead back");
    } finally {
      await term?.end();
      leadership.follow();
      await lease
        .release()
        .catch((error: Error) => log.warn({ err: error }, "the lease was not given up cleanly"));
    }
    return term?.highestEpoch ?? 0n;
  }
}

function aborted(...signals: AbortSignal[]): Promise<void> {
  const any = AbortSignal.any(signals);
  if (any.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    any.addEventListener("abort", () => resolve(), { once: true });
  });
}
