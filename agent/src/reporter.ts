/**
 * Keeps the scheduler informed: joins, then hands over the records of the spool with the node's pressure, once a period
 * or soon after something happened; one report at a time. Whatever fails is tried again: the spool keeps it.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import { type RpcConnection, streaming } from "@warren/common/rpc/client";
import { Code, ConnectError, isRpcCode } from "@warren/common/rpc/errors";
import { backoff, fromDuration, pause } from "@warren/common/time";
import type { Isolation, NodeCapacitySchema, NodeHostSchema, NodePressure } from "@warren/proto/common";
import { InventorySchema, NodeService, ReportRequestSchema } from "@warren/proto/scheduler";
import type { Fence } from "./fence.ts";
import { messageOf } from "./files.ts";
import type { AgentMetrics } from "./metrics.ts";
import type { Spool } from "./spool.ts";

/** What the agent says of itself when it joins. */
export interface JoinFacts {
  readonly node: string;
  readonly agentUrl: string;
  readonly bootId: string;
  readonly incarnation: string;
  readonly version: string;
  readonly capacity: MessageInitShape<typeof NodeCapacitySchema>;
  readonly isolation: Isolation[];
  readonly host: MessageInitShape<typeof NodeHostSchema>;
  readonly labels: Record<string, string>;
  readonly allowDirectories: boolean;
}

export interface ReporterOptions {
  readonly connection: RpcConnection;
  /** Everything but the epoch, which is the fence's. */
  readonly join: JoinFacts;
  readonly spool: Spool;
  readonly fence: Fence;
  readonly inventory: () => MessageInitShape<typeof InventorySchema>;
  readonly pressure: () => NodePressure;
  readonly metrics: AgentMetrics;
  readonly log: Logger;
}

/** Records that happen together travel together. */
const debounceMs = 5;
const defaultPeriodMs = 1_000;
const longestPeriodMs = 60_000;
const callMs = 10_000;
const retry = { baseMs: 100, maxMs: 5_000, random: Math.random };
/** Of one report; a message holds at most 4 MiB and 2000 records. */
const recordsAtOnce = 1_000;
const bytesAtOnce = 1024 * 1024;

export class Reporter {
  readonly #client;
  readonly #stopped = new AbortController();
  readonly #running: Promise<void>;
  #wake: (() => void) | undefined;
  #joined = false;
  /** Something happened since the last report was put together. */
  #dirty = false;
  /** So much waits that the next report goes at once. */
  #more = false;
  #trouble = "";
  #periodMs = defaultPeriodMs;

  constructor(private readonly options: ReporterOptions) {
    this.#client = options.connection.client(NodeService);
    options.spool.onAppend(() => {
      this.#dirty = true;
      this.#wake?.();
    });
    this.#running = this.#run();
  }

  /** Whether the scheduler has this node in its roster, as far as we know. */
  get joined(): boolean {
    return this.#joined;
  }

  /** The bytes of a release from the scheduler. */
  download(digest: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return chunks(streaming((own) => this.#client.downloadRelease({ digest }, { signal: own }), signal));
  }

  /** Hands over what there is, if the scheduler takes it within `ms`; the rest stays in the spool. */
  async flush(ms: number): Promise<void> {
    const deadline = performance.now() + ms;
    const left = () => deadline - performance.now();
    while (this.#joined && this.options.spool.size > 0 && left() > 0) {
      this.#dirty = true;
      this.#wake?.();
      await pause(Math.min(debounceMs, Math.max(1, left())));
    }
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    let first = true;
    for (let attempt = 0; !signal.aborted; ) {
      try {
        if (!this.#joined) {
          await this.#join();
          first = true;
        }
        await this.#report(first);
        first = false;
        attempt = 0;
        if (this.#trouble) this.options.log.info("reporting to the scheduler again");
        this.#trouble = "";
      } catch (error) {
        if (signal.aborted) return;
        this.options.metrics.reports.inc({ outcome: "failed" });
        this.#complain(error);
        if (isRpcCode(error, Code.FailedPrecondition)) this.#joined = false;
        await pause(backoff({ ...retry, attempt: attempt++ }), signal);
        continue;
      }
      if (!this.#more) await this.#idle(signal);
    }
  }

  /** Until the period is over or something happened, and then a moment for what happens with it. */
  async #idle(signal: AbortSignal): Promise<void> {
    if (!this.#dirty) {
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      await pause(this.#periodMs, AbortSignal.any([signal, woken.signal]));
      this.#wake = undefined;
    }
    if (this.#dirty) await pause(debounceMs, signal);
  }

  async #join(): Promise<void> {
    const { join, fence, log } = this.options;
    const response = await this.#client.join(
      { ...join, highestEpoch: fence.highest },
      { signal: this.#stopped.signal, timeoutMs: callMs },
    );
    if (response.epoch < fence.highest) {
      throw new ConnectError(
        `the scheduler speaks with epoch ${response.epoch}, but ${fence.highest} has spoken: its lease is over`,
        Code.Unavailable,
      );
    }
    fence.raise(response.epoch);
    this.#setPeriod(fromDuration(response.reportPeriod, defaultPeriodMs));
    this.#joined = true;
    log.info(
      { scheduler: this.options.connection.url, cell: response.cell, epoch: String(response.epoch) },
      "joined the scheduler",
    );
  }

  /** @param first after a Join: with the inventory, taken after the fence was raised */
  async #report(first: boolean): Promise<void> {
    const { spool, fence, join, metrics } = this.options;
    this.#dirty = false;
    const { stream, records } = spool.batch(recordsAtOnce, bytesAtOnce);
    const response = await this.#client.report(
      create(ReportRequestSchema, {
        node: join.node,
        incarnation: join.incarnation,
        stream,
        fencedEpoch: fence.highest,
        records,
        pressure: this.options.pressure(),
        inventory: first ? create(InventorySchema, this.options.inventory()) : undefined,
      }),
      { signal: this.#stopped.signal, timeoutMs: callMs },
    );
    fence.raise(response.epoch);
    const last = records.at(-1);
    // Never more than was sent: an answer that claims so is not about this stream.
    const all = last !== undefined && response.ackedSeq >= last.seq;
    if (last) spool.ack(stream, all ? last.seq : response.ackedSeq);
    // What is of another stream, left by the agent before this one, goes apart.
    this.#more =
      all && spool.size > 0 && (spool.size >= recordsAtOnce || spool.batch(1, 1).stream !== stream);
    this.#setPeriod(fromDuration(response.reportPeriod, this.#periodMs));
    metrics.reports.inc({ outcome: "ok" });
  }

  #setPeriod(ms: number): void {
    this.#periodMs = Math.min(longestPeriodMs, Math.max(10, ms));
  }

  /** Once per change of the cause: an agent that waits for its scheduler for a day must not fill a disk. */
  #complain(error: unknown): void {
    const code = error instanceof ConnectError ? Code[error.code] : "";
    const message = error instanceof ConnectError ? error.rawMessage : messageOf(error);
    const cause = `${code}: ${message.replace(/\d+/g, "#")}`; // ports and times differ from try to try
    if (cause === this.#trouble) return;
    this.#trouble = cause;
    const scheduler = this.options.connection.url;
    const hint =
      code === "Unauthenticated" || code === "PermissionDenied"
        ? "the scheduler does not accept this agent's credentials"
        : code === "FailedPrecondition" && this.#joined
          ? "the scheduler wants this node to join again"
          : "the scheduler cannot be told what happens here; tenants go on, and it is tried again";
    this.options.log.warn({ scheduler, code, why: message }, hint);
  }
}

async function* chunks(parts: AsyncIterable<{ chunk: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { chunk } of parts) yield chunk;
}
