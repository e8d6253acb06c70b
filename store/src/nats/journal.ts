import { pause } from "@warren/common/time";
import { StoreUnavailableError } from "../errors.ts";
import { checkDeadline, checkRecords, DEFAULT_DEADLINE_MS, LIMITS, recordBytes } from "../limits.ts";
import type { Journal, JournalBatch, JournalRecord, ReadOptions } from "../store.ts";
import { Backoff } from "../time.ts";
import { type NatsLink, REQUEST_MS, unavailable } from "./connection.ts";
import type { NatsJournalReader } from "./journal-reader.ts";
import { recordHeaders } from "./records.ts";
import { EVENTS_STREAM } from "./streams.ts";

/** One call of `append`, until all its records are acknowledged or its deadline has passed. */
interface Append {
  readonly records: readonly JournalRecord[];
  readonly bytes: number;
  /** Index of the first record that is not acknowledged. */
  next: number;
  settled: boolean;
  readonly settle: (error?: Error) => void;
}

/** Records published and not yet acknowledged, at most. */
const WINDOW = 64;

/**
 * Appends by publishing windows of up to 64 records at once and waiting for all their acknowledgements. When one is
 * missing, publishing goes back to it and sends the rest of the window again: the server drops what it has
 * already by the same ids, and the order of the journal stays that of the appends.
 */
export class NatsJournal implements Journal {
  readonly #queue: Append[] = [];
  readonly #closed = new AbortController();
  #queuedRecords = 0;
  #queuedBytes = 0;
  #pumping = false;
  #lastFailure: unknown;

  constructor(
    readonly link: NatsLink,
    readonly reader: NatsJournalReader,
  ) {}

  async append(records: readonly JournalRecord[], options: { deadlineMs?: number } = {}): Promise<void> {
    checkRecords(records);
    const deadlineMs = checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS);
    if (this.#closed.signal.aborted) throw new StoreUnavailableError("the store is closed");
    if (records.length === 0) return;
    const bytes = records.reduce((sum, record) => sum + recordBytes(record), 0);
    if (
      this.#queuedRecords + records.length > LIMITS.queuedRecords ||
      this.#queuedBytes + bytes > LIMITS.queuedBytes
    ) {
      throw new StoreUnavailableError(
        `${this.#queuedRecords} records wait for NATS at ${this.link.url} already`,
      );
    }
    await new Promise<void>((resolve, reject) => this.#enqueue(records, bytes, deadlineMs, resolve, reject));
  }

  read(options: ReadOptions): AsyncIterable<JournalBatch> {
    return this.reader.read(options);
  }

  async lastSeq(): Promise<bigint> {
    try {
      const { state } = await this.link.guard(() => this.link.jsm.streams.info(EVENTS_STREAM));
      return BigInt(state.last_seq);
    } catch (error) {
      throw unavailable(this.link, "reading the journal's end", error);
    }
  }

  close(): void {
    this.#closed.abort();
    for (const append of [...this.#queue]) append.settle(new StoreUnavailableError("the store is closed"));
  }

  #enqueue(
    records: readonly JournalRecord[],
    bytes: number,
    deadlineMs: number,
    resolve: () => void,
    reject: (error: Error) => void,
  ): void {
    const append: Append = {
      records,
      bytes,
      next: 0,
      settled: false,
      settle: (error) => {
        if (append.settled) return;
        append.settled = true;
        clearTimeout(timer);
        this.#queue.splice(this.#queue.indexOf(append), 1);
        this.#queuedRecords -= records.length;
        this.#queuedBytes -= bytes;
        if (error === undefined) resolve();
        else reject(error);
      },
    };
    const timer = setTimeout(() => {
      append.settle(
        unavailable(
          this.link,
          `storing ${records.length} records within ${deadlineMs} ms`,
          this.#lastFailure,
        ),
      );
    }, deadlineMs);
    this.#queue.push(append);
    this.#queuedRecords += records.length;
    this.#queuedBytes += bytes;
    void this.#pump();
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    const backoff = new Backoff(20, 250);
    try {
      while (this.#queue.length > 0 && !this.#closed.signal.aborted) {
        // What is published while disconnected is lost without a word.
        if (!this.link.connected) this.#lastFailure = new Error("not connected");
        await this.link.whenConnected(this.#closed.signal);
        if (await this.#publishWindow()) backoff.reset();
        else await pause(backoff.next(), this.#closed.signal);
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** Publishes the first records of the queue. Answers whether all of them were acknowledged. */
  async #publishWindow(): Promise<boolean> {
    const sent: { append: Append; acknowledged: Promise<boolean> }[] = [];
    for (const append of this.#queue) {
      for (let index = append.next; index < append.records.length && sent.length < WINDOW; index++) {
        sent.push({ append, acknowledged: this.#publish(append.records[index]!) });
      }
      if (sent.length >= WINDOW) break;
    }
    // A lost connection ends the wait for acknowledgements that cannot come any more.
    const settled = new AbortController();
    const lost = this.link.whenLost(this.link.generation, settled.signal).then(() => false);
    for (const { append, acknowledged } of sent) {
      if (!(await Promise.race([acknowledged, lost]))) {
        settled.abort();
        return false;
      }
      append.next++;
      if (append.next === append.records.length) append.settle();
    }
    settled.abort();
    return true;
  }

  async #publish(record: JournalRecord): Promise<boolean> {
    try {
      await this.link.js.publish(record.subject, record.data, {
        msgID: record.id,
        headers: recordHeaders(record),
        timeout: REQUEST_MS,
        expect: { streamName: EVENTS_STREAM },
      });
      return true;
    } catch (error) {
      this.#lastFailure = error;
      return false;
    }
  }
}
