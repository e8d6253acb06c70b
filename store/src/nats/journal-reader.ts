import { pause } from "@warren/common/time";
import { StoreMismatchError } from "../errors.ts";
import { checkReadOptions } from "../limits.ts";
import type { JournalBatch, JournalReader, ReadOptions } from "../store.ts";
import { anySignal, Backoff } from "../time.ts";
import type { NatsLink } from "./connection.ts";
import { OrderedPull } from "./ordered-pull.ts";
import type { Delivery } from "./pull.ts";
import { toStoredRecord } from "./records.ts";
import { EVENTS_STREAM } from "./streams.ts";

/**
 * Follows the journal's stream, through outages of NATS and through a time when the stream does not exist yet.
 */
export class NatsJournalReader implements JournalReader {
  readonly #closed = new AbortController();

  constructor(readonly link: NatsLink) {}

  async *read(options: ReadOptions): AsyncGenerator<JournalBatch, void, undefined> {
    const checked = checkReadOptions(options);
    const signal = anySignal(checked.signal, this.#closed.signal);
    const source = new OrderedPull(this.link, {
      stream: EVENTS_STREAM,
      filter: checked.subjectPrefix === undefined ? undefined : `${checked.subjectPrefix}.>`,
      after: checked.after,
      batch: checked.batch,
      durable: checked.durable,
    });
    const backoff = new Backoff(50, 1000);
    try {
      while (!signal.aborted) {
        const deliveries = await this.#next(source, signal, backoff);
        const last = deliveries.at(-1);
        if (last === undefined || signal.aborted) continue;
        yield {
          records: deliveries.map(toStoredRecord),
          pending: last.pending,
          ack: () => source.acknowledge(last),
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
  async #next(source: OrderedPull, signal: AbortSignal, backoff: Backoff): Promise<readonly Delivery[]> {
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
}
