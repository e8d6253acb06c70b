import { pause } from "@warren/common/time";
import { StoreMismatchError } from "../errors.ts";
import { type CheckedReadOptions, checkReadOptions } from "../limits.ts";
import type { JournalBatch, JournalReader, ReadOptions } from "../store.ts";
import { anySignal, Backoff } from "../time.ts";
import type { NatsLink } from "./connection.ts";
import { DurablePull } from "./durable-pull.ts";
import { OrderedPull } from "./ordered-pull.ts";
import type { Delivery } from "./pull.ts";
import { toStoredRecord } from "./records.ts";
import { EVENTS_STREAM } from "./streams.ts";

/** Either way of reading the stream. */
interface Source {
  next(signal: AbortSignal, wait: boolean): Promise<readonly Delivery[]>;
  close(): Promise<void>;
}

/**
 * Follows the journal's stream, through outages of NATS and through a time when the stream does not exist yet.
 */
export class NatsJournalReader implements JournalReader {
  readonly #closed = new AbortController();

  constructor(
    readonly link: NatsLink,
    /** After that long without an acknowledgement a durable's records are delivered again, in milliseconds. */
    readonly ackWaitMs: number,
  ) {}

  async *read(options: ReadOptions): AsyncGenerator<JournalBatch, void, undefined> {
    const checked = checkReadOptions(options);
    const signal = anySignal(checked.signal, this.#closed.signal);
    const durable = checked.durable === undefined ? undefined : this.#durable(checked.durable, checked);
    const source: Source = durable ?? this.#ordered(checked);
    const backoff = new Backoff(50, 1000);
    try {
      while (!signal.aborted) {
        const deliveries = await this.#next(source, signal, backoff);
        if (deliveries.length === 0 || signal.aborted) continue;
        yield {
          records: deliveries.map(toStoredRecord),
          ack: () => durable?.acknowledge(deliveries) ?? Promise.resolve(),
        };
      }
    } finally {
      await source.close();
    }
  }

  close(): void {
    this.#closed.abort();
  }

  /** Outages, a missing stream, a consumer in the middle of a failover: all pass, and reading goes on. */
  async #next(source: Source, signal: AbortSignal, backoff: Backoff): Promise<readonly Delivery[]> {
    try {
      await this.link.whenConnected(signal);
      if (signal.aborted) return [];
      const deliveries = await source.next(signal, true);
      backoff.reset();
      return deliveries;
    } catch (error) {
      if (error instanceof StoreMismatchError) throw error;
      await pause(backoff.next(), signal);
      return [];
    }
  }

  #durable(name: string, options: CheckedReadOptions): DurablePull {
    return new DurablePull(this.link, {
      stream: EVENTS_STREAM,
      name,
      filter: filterOf(options),
      after: options.after,
      batch: options.batch,
      ackWaitMs: this.ackWaitMs,
    });
  }

  #ordered(options: CheckedReadOptions): OrderedPull {
    return new OrderedPull(this.link, {
      stream: EVENTS_STREAM,
      filter: filterOf(options),
      after: options.after,
      batch: options.batch,
    });
  }
}

function filterOf(options: CheckedReadOptions): string | undefined {
  return options.subjectPrefix === undefined ? undefined : `${options.subjectPrefix}.>`;
}
