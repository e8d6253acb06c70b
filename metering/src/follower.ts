/**
 * Follows the journal and feeds the ledger, for as long as the process lives.
 *
 *  F1  A batch is acknowledged only after it was committed, with its position in the same transaction.
 *  F2  Whatever fails (journal, disk), the follower starts again from the position committed last, after a pause.
 *  F3  Stopping finishes the batch in hand.
 *  F4  A journal that has been quiet for a while is looked at anew: should it have been wiped and begun again under us,
 *      its new records lie before our position, and following from there would never show them. If it is as it was,
 *      reading goes on as if nothing had been.
 *
 * On NATS it reads through the consumer `warren-metering`, for `nats consumer info` and lag tools to see what was counted.
 * The ledger's position stays the only truth: a ledger restored from a backup is behind what the server thinks
 * acknowledged, and what lies between must be counted. So the consumer is made anew at the ledger's position at each start,
 * and whenever deliveries may have been lost (store/src/nats/ordered-pull.ts), which also keeps the order strict.
 */
import type { Logger } from "@warren/common/log";
import { backoff, type Clock, pause, withDeadline } from "@warren/common/time";
import type { JournalBatch, JournalReader } from "@warren/store";
import { foldForAWhile } from "./folding.ts";
import type { Ledger } from "./ledger/ledger.ts";
import type { MeteringMetrics } from "./metrics.ts";
import { type Resume, resumeAt } from "./resume.ts";

export const consumerName = "warren-metering";

/** Records in one transaction: some ten milliseconds in which nothing else is answered. */
const batchRecords = 512;
/** Of the pause after a failure, in ms. */
const retry = { baseMs: 100, maxMs: 10_000 } as const;
const stopMs = 5_000;

export interface FollowerOptions {
  readonly reader: JournalReader;
  readonly ledger: Pick<Ledger, "count" | "position" | "fold">;
  /** The journal's name in the ledger. */
  readonly source: string;
  /** Under which name the journal shows what was counted; default {@link consumerName}. One reader at a time. */
  readonly consumer?: string;
  readonly metrics: MeteringMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Uniform in [0, 1); default Math.random. */
  readonly random?: () => number;
  /** How long one look into the journal may take when resuming, in ms; default 3 s. */
  readonly lookMs?: number;
  /** After so long without a record the position is verified again, in ms; default 30 s. */
  readonly quietMs?: number;
}

export class Follower implements AsyncDisposable {
  readonly #options: FollowerOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #failures = 0;

  private constructor(options: FollowerOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  static start(options: FollowerOptions): Follower {
    return new Follower(options);
  }

  /** @throws DeadlineError when the batch in hand is not done within 5 s; the ledger is whole all the same */
  stop(): Promise<void> {
    this.#stop.abort();
    return withDeadline(this.#running, stopMs, "finishing the batch in hand");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { metrics, log, random = Math.random } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) return;
        metrics.failed();
        const ms = backoff({ ...retry, attempt: this.#failures++, random });
        log.warn({ err: error, retryMs: Math.round(ms) }, "events are not counted now; trying again");
        await pause(ms, signal);
      }
    }
  }

  /** Until the journal turns out to be another one, or the signal aborts. */
  async #follow(signal: AbortSignal): Promise<void> {
    const { reader, source, log, quietMs = 30_000, consumer: durable = consumerName } = this.#options;
    const { after, warning } = await this.#resume(signal);
    if (warning) log.warn({ source }, warning);
    log.debug({ source, after: `${after}` }, "following the journal");
    const ended = new AbortController();
    const following = AbortSignal.any([signal, ended.signal]);
    const batches = reader.read({ durable, after, batch: batchRecords, signal: following });
    const reading = batches[Symbol.asyncIterator]();
    let place = after;
    try {
      let next = reading.next();
      for (;;) {
        while (!(await within(next, quietMs))) {
          if ((await this.#resume(signal)).after !== place) return;
        }
        const { value: batch, done } = await next;
        if (done) break;
        // On its way while this one is counted; should that fail, it is given up, and comes again.
        next = reading.next();
        next.catch(() => {});
        await this.#count(batch);
        await this.#acknowledge(batch);
        await foldForAWhile(this.#options);
        if (signal.aborted) return;
        place = batch.records.at(-1)!.seq;
        this.#failures = 0;
        // Pages of the embedded journal come without a pause; calls must have their turn in between.
        await new Promise((turn) => setImmediate(turn));
      }
      if (!signal.aborted) throw new Error("the journal's reader has ended");
    } finally {
      ended.abort();
      await reading.return?.();
    }
  }

  async #resume(signal: AbortSignal): Promise<Resume> {
    const { reader, ledger, source, lookMs = 3_000 } = this.#options;
    const position = await ledger.position(source);
    return await resumeAt({ reader, position, signal, lookMs });
  }

  async #count(batch: JournalBatch): Promise<void> {
    const { ledger, source, metrics, clock, log } = this.#options;
    metrics.read(batch);
    const begun = clock.monotonic();
    const counted = await ledger.count(source, batch.records);
    metrics.counted(counted, {
      commitMs: clock.monotonic() - begun,
      now: clock.now(),
      pending: batch.pending,
    });
    if (counted.newlyQuarantined === 0) return;
    const { kind, reason, record } = counted.quarantined[0]!;
    log.warn(
      { records: counted.newlyQuarantined, kind, reason, id: record.id, seq: `${record.seq}` },
      "odd records were put in quarantine; the first is shown",
    );
  }

  /** The commit counts, not this: should it fail, the records at worst come again and change nothing. */
  async #acknowledge(batch: JournalBatch): Promise<void> {
    try {
      await batch.ack();
    } catch (error) {
      this.#options.log.debug({ err: error }, "a batch that is committed was not acknowledged");
    }
  }
}

/** Whether it is settled by then; not how. */
function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true,
  );
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => late.resolve(false), ms);
  return Promise.race([settled, late.promise]).finally(() => clearTimeout(timer));
}
