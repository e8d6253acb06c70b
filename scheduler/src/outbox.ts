/**
 * The scheduler's own events on their way to the journal: in order, on disk until they are stored, and sent by the next
 * process on the same state directory under the same ids, also if that one follows. Bounded: when the journal is away for
 * long the oldest decisions are dropped and counted, since they bill nothing; transitions never.
 */
import type { EventRecord } from "@warren/common/cloudevents";
import { LineFile, parseLine } from "@warren/common/line-file";
import type { Logger } from "@warren/common/log";
import { backoff, pause } from "@warren/common/time";
import { type Journal, StoreInputError } from "@warren/store";

interface Entry {
  /** Rises with each event of this file. */
  readonly n: number;
  readonly record: EventRecord;
  readonly line: string;
}

/** A line of the file: an event, or the word that one was dropped, or that all up to one need not be kept any more. */
interface Line {
  readonly n?: number;
  readonly drop?: number;
  readonly ack?: number;
  readonly record?: Omit<EventRecord, "data"> & { readonly data: string };
}

export interface OutboxOptions {
  readonly journal: Pick<Journal, "append">;
  /** In the scheduler's state directory. */
  readonly path: string;
  readonly log: Logger;
  /** Events kept at most, transitions apart. */
  readonly bound?: number;
}

const batchSize = 64;

export class Outbox {
  readonly #journal: Pick<Journal, "append">;
  readonly #log: Logger;
  readonly #bound: number;
  readonly #file: LineFile;
  readonly #stop = new AbortController();
  #queue: Entry[] = [];
  #next = 1;
  #running: Promise<void> | undefined;
  /** Decisions that were dropped because the journal was away. */
  dropped = 0;

  constructor({ journal, path, log, bound = 10_000 }: OutboxOptions) {
    this.#journal = journal;
    this.#log = log;
    this.#bound = bound;
    this.#file = new LineFile({
      path,
      held: () => this.#queue.length,
      lines: () => this.#queue.map(({ line }) => line),
      onBehind: (err) => log.error({ err }, "the scheduler's own events cannot be kept on disk"),
    });
    this.#load(LineFile.read(path));
    this.#file.rewrite();
    if (this.#queue.length > 0) {
      log.info({ events: this.#queue.length }, "events of the scheduler before this one are sent");
      this.#start();
    }
  }

  /** Events that are not stored yet. */
  get size(): number {
    return this.#queue.length;
  }

  publish(record: EventRecord): void {
    const n = this.#next++;
    const line: Line = { n, record: { ...record, data: Buffer.from(record.data).toString("base64") } };
    const entry = { n, record, line: JSON.stringify(line) };
    this.#queue.push(entry);
    this.#file.append(entry.line);
    if (this.#queue.length > this.#bound) this.#drop();
    this.#start();
  }

  /** Gives what is queued a last chance of `deadlineMs`; what is left is the next process's to send. */
  async stop(deadlineMs: number): Promise<void> {
    const limit = new AbortController();
    await Promise.race([this.#running, pause(deadlineMs, limit.signal)]);
    limit.abort();
    this.#stop.abort();
  }

  #load(lines: readonly string[]): void {
    const dropped = new Set<number>();
    let acked = 0;
    for (const text of lines) {
      const { n, ack, drop, record } = (parseLine(text) ?? {}) as Line;
      if (ack !== undefined) acked = ack;
      if (drop !== undefined) dropped.add(drop);
      if (n === undefined || !record) continue;
      this.#queue.push({ n, line: text, record: { ...record, data: Buffer.from(record.data, "base64") } });
      this.#next = n + 1;
    }
    this.#queue = this.#queue.filter(({ n }) => n > acked && !dropped.has(n));
  }

  #forget(upTo: number): void {
    const left = this.#queue.findIndex(({ n }) => n > upTo);
    this.#queue = left < 0 ? [] : this.#queue.slice(left);
  }

  #drop(): void {
    const oldest = this.#queue.findIndex(({ record }) => !isTransition(record));
    if (oldest < 0) return; // one for each instance, which have a bound of their own
    const [{ n }] = this.#queue.splice(oldest, 1) as [Entry];
    this.#file.append(JSON.stringify({ drop: n } satisfies Line));
    if (this.dropped++ === 0)
      this.#log.warn("the journal is away: the oldest of the scheduler's own decisions are dropped");
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // An event may have come between the end of the last batch and this.
      if (this.#queue.length && !this.#stop.signal.aborted) this.#start();
    });
  }

  async #run(): Promise<void> {
    for (let attempt = 0; this.#queue.length && !this.#stop.signal.aborted; ) {
      const batch = this.#queue.slice(0, batchSize);
      try {
        await this.#append(batch.map(({ record }) => record));
        attempt = 0;
      } catch (error) {
        if (attempt === 0) this.#log.warn({ err: error }, "the journal does not take events; trying on");
        await pause(
          backoff({ baseMs: 100, maxMs: 5_000, attempt: attempt++, random: Math.random }),
          this.#stop.signal,
        );
        continue;
      }
      // Some of the batch may have been dropped meanwhile; nothing before its end is left.
      const ack = batch.at(-1)!.n;
      this.#forget(ack);
      this.#file.append(JSON.stringify({ ack } satisfies Line));
    }
  }

  /** One that the journal will never take must not keep those behind it waiting for ever. */
  async #append(records: readonly EventRecord[]): Promise<void> {
    try {
      await this.#journal.append(records, { deadlineMs: 5_000 });
    } catch (error) {
      if (!(error instanceof StoreInputError)) throw error;
      if (records.length > 1) {
        for (const record of records) await this.#append([record]);
        return;
      }
      this.dropped++;
      this.#log.error(
        { err: error, id: records[0]!.id },
        "an event of the scheduler is none for the journal",
      );
    }
  }
}

function isTransition({ headers }: EventRecord): boolean {
  return headers["ce-type"] === "dev.warren.transition";
}
