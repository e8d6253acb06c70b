/**
 * What went to clients, by tenant: cumulative counters, and the batches in which the scheduler is told of them. Pure.
 *
 * B1  A counter only rises. Forgotten, it begins again from 0 in a higher run, so that nobody takes the one for the other.
 * B2  A batch is told again, unchanged, until it was acknowledged; only then is there a next one. Counters rise meanwhile.
 * B3  Whoever was told of waits behind the others: as many batches as {@link Traffic.batches} have everyone's turn in them.
 * B4  Only what was acknowledged, to the last byte, is forgotten. What was not has the bound of the tenants that had an
 *     instance here since.
 */
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { type TrafficRecord, TrafficRecordSchema } from "@warren/proto/scheduler";

interface Counter {
  readonly run: number;
  requests: number;
  bytesOut: number;
  /** As they were acknowledged last. */
  ackedRequests: number;
  ackedBytesOut: number;
}

export interface TrafficOptions {
  /** This gateway's id. */
  readonly gateway: string;
  /** Most records of a batch. */
  readonly maxBatch: number;
  /** Counters kept although they were acknowledged, so that runs need not rise for the tenants of every day. */
  readonly keep: number;
}

export class Traffic {
  readonly #options: TrafficOptions;
  readonly #counters = new Map<string, Counter>();
  #run = 0;
  #seq = 0n;
  #batch: readonly TrafficRecord[] = [];

  constructor(options: TrafficOptions) {
    this.#options = options;
  }

  /** A request, a stream or a WebSocket reached an instance of the tenant. */
  reached(tenant: string): void {
    this.#of(tenant).requests++;
  }

  /** Bytes of a body or of a WebSocket's message went to a client. */
  sent(tenant: string, bytes: number): void {
    this.#of(tenant).bytesOut += bytes;
  }

  /** Tenants that are counted. */
  get size(): number {
    return this.#counters.size;
  }

  /** In so many batches each tenant comes once, however busy it is meanwhile. */
  get batches(): number {
    return Math.ceil(this.#counters.size / this.#options.maxBatch);
  }

  /**
   * What is to be told now: the batch that was not acknowledged yet, or else the next one; empty if there is nothing.
   * @param at ms since 1970
   */
  batch(at: number): readonly TrafficRecord[] {
    if (this.#batch.length > 0) return this.#batch;
    const batch: TrafficRecord[] = [];
    for (const [tenant, counter] of this.#counters) {
      if (batch.length >= this.#options.maxBatch) break;
      if (isAcknowledged(counter)) continue;
      batch.push(
        create(TrafficRecordSchema, {
          seq: ++this.#seq,
          report: {
            tenant,
            gateway: this.#options.gateway,
            run: counter.run,
            at: toTimestamp(at),
            requests: BigInt(counter.requests),
            bytesOut: BigInt(counter.bytesOut),
          },
        }),
      );
    }
    this.#batch = batch;
    return batch;
  }

  /** The journal has the batch. */
  acknowledge(): void {
    for (const { report } of this.#batch) {
      const counter = this.#counters.get(report!.tenant)!;
      counter.ackedRequests = Number(report!.requests);
      counter.ackedBytesOut = Number(report!.bytesOut);
      this.#counters.delete(report!.tenant); // B3
      this.#counters.set(report!.tenant, counter);
    }
    this.#batch = [];
    this.#forget();
  }

  #of(tenant: string): Counter {
    let counter = this.#counters.get(tenant);
    if (!counter) {
      counter = { run: this.#run, requests: 0, bytesOut: 0, ackedRequests: 0, ackedBytesOut: 0 };
      this.#counters.set(tenant, counter);
    }
    return counter;
  }

  /** Whoever was told of longest ago goes first. Those that go on keep their run: they go on from where they are. */
  #forget(): void {
    let over = this.#counters.size - this.#options.keep;
    if (over <= 0) return;
    for (const [tenant, counter] of this.#counters) {
      if (over <= 0) break;
      if (!isAcknowledged(counter)) continue;
      this.#counters.delete(tenant);
      over--;
      this.#run = Math.max(this.#run, counter.run + 1);
    }
  }
}

function isAcknowledged(counter: Counter): boolean {
  return counter.requests === counter.ackedRequests && counter.bytesOut === counter.ackedBytesOut;
}
