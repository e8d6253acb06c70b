/**
 * Records for the scheduler, on disk until it has acknowledged them (rule 8). Each has a number that only rises, in a
 * stream that is named once per runtime directory. Bounded: usage is cumulative, so of an instance only the newest need
 * be kept; a transition is never dropped: when they alone fill the spool, new starts are refused.
 */
import { appendFileSync } from "node:fs";
import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import type { Logger } from "@warren/common/log";
import { toTimestamp } from "@warren/common/time";
import { InstanceState, type Transition } from "@warren/proto/common";
import { type NodeRecord, NodeRecordSchema } from "@warren/proto/scheduler";
import { messageOf, readIfThere, writeWhole } from "./files.ts";

export type What = NonNullable<NodeRecord["what"]> & { case: "transition" | "usage" };

interface Entry {
  readonly record: NodeRecord;
  readonly line: string;
}

/** The first line of the file. */
interface Header {
  readonly stream: string;
  readonly next: string;
}

/** An instance that lives may still have this many transitions to tell. */
const transitionsPerInstance = 4;

export class Spool {
  readonly stream: string;
  #entries: Entry[] = [];
  #transitions = 0;
  #next = 1n;
  /** Lines on disk, acknowledged ones included. */
  #lines = 0;
  #broken = false;
  readonly #listeners = new Set<() => void>();

  constructor(
    private readonly path: string,
    private readonly log: Logger,
    /** Records kept at most. */
    readonly bound = 20_000,
  ) {
    const [first, ...rest] = (readIfThere(path) ?? "").split("\n");
    const header = parse(first ?? "") as Header | undefined;
    this.stream = header?.stream ?? ulid();
    if (header) this.#next = BigInt(header.next);
    let acked = 0n;
    for (const line of rest) {
      if (line === "") continue;
      const value = parse(line) as { ack?: string } | undefined;
      if (value?.ack !== undefined) {
        acked = BigInt(value.ack);
        continue;
      }
      try {
        const record = fromJson(NodeRecordSchema, value as JsonValue);
        this.#push({ record, line });
        if (record.seq >= this.#next) this.#next = record.seq + 1n;
      } catch (error) {
        this.log.error({ why: messageOf(error) }, "a line of the spool cannot be read; it is left out");
      }
    }
    this.#forget(acked);
    this.#lines = Number.POSITIVE_INFINITY; // written anew, if the disk is not full
    this.#write("");
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Whether a new instance's transitions might not fit. */
  isFull(liveInstances: number): boolean {
    if (this.#broken) this.#write(""); // is there room again?
    return this.#broken || this.#transitions + (liveInstances + 1) * transitionsPerInstance > this.bound;
  }

  /** How this instance ended, if that is in the spool. */
  exitOf(id: string): Transition | undefined {
    for (const { record } of this.#entries) {
      const { what } = record;
      if (what.case !== "transition" || what.value.instance?.id !== id) continue;
      if (what.value.to === InstanceState.EXITED) return what.value;
    }
    return undefined;
  }

  /**
   * Never fails: what cannot be written is kept in memory, and no new instance is accepted until it could be.
   * @param at ms since 1970
   */
  append(what: What, at: number): void {
    const record = create(NodeRecordSchema, { seq: this.#next++, at: toTimestamp(at), what });
    const entry = { record, line: JSON.stringify(toJson(NodeRecordSchema, record)) };
    this.#push(entry);
    if (this.#entries.length > this.bound) this.#dropUsage();
    this.#write(entry.line);
    for (const listener of this.#listeners) listener();
  }

  /** Calls back at each append. */
  onAppend(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** The oldest records, as many as fit. */
  batch(maxRecords: number, maxBytes: number): NodeRecord[] {
    const batch: NodeRecord[] = [];
    let bytes = 0;
    for (const { record, line } of this.#entries) {
      bytes += line.length;
      if (batch.length > 0 && (batch.length >= maxRecords || bytes > maxBytes)) break;
      batch.push(record);
    }
    return batch;
  }

  ack(seq: bigint): void {
    if (this.#forget(seq)) this.#write(JSON.stringify({ ack: String(seq) }));
  }

  #push(entry: Entry): void {
    this.#entries.push(entry);
    if (entry.record.what.case === "transition") this.#transitions++;
  }

  #forget(seq: bigint): boolean {
    let count = 0;
    for (const { record } of this.#entries) {
      if (record.seq > seq) break;
      if (record.what.case === "transition") this.#transitions--;
      count++;
    }
    if (count > 0) this.#entries = this.#entries.slice(count);
    return count > 0;
  }

  /** Of each instance only the newest usage stays; and if that is not enough, none that is older than a transition. */
  #dropUsage(): void {
    const newest = new Set<string>();
    const kept: Entry[] = [];
    for (const entry of this.#entries.toReversed()) {
      const { what } = entry.record;
      if (what.case === "usage" || what.case === "transition") {
        const id = what.value.instance?.id ?? "";
        // A transition carries the counters too, so that usage before it says nothing more.
        if (what.case === "usage" && newest.has(id)) continue;
        newest.add(id);
      }
      kept.push(entry);
    }
    this.#entries = kept.toReversed();
    const over = this.#entries.length - this.bound;
    if (over > 0) {
      let dropped = 0;
      this.#entries = this.#entries.filter(
        ({ record }) => record.what.case === "transition" || ++dropped > over,
      );
    }
    this.#lines = Number.POSITIVE_INFINITY; // the file still has them: it is written anew at once
  }

  #write(line: string): void {
    try {
      // Twice what is held: each compaction is paid for by as many appends.
      if (this.#broken || this.#lines > 2 * this.#entries.length + 1_000) {
        this.#compact();
      } else {
        appendFileSync(this.path, `${line}\n`, { mode: 0o600 });
        this.#lines++;
      }
    } catch (error) {
      if (!this.#broken) {
        this.log.error({ why: messageOf(error) }, "the spool cannot be written: no new instance is started");
      }
      this.#broken = true;
    }
  }

  #compact(): void {
    const header: Header = { stream: this.stream, next: String(this.#next) };
    const lines = [JSON.stringify(header), ...this.#entries.map((entry) => entry.line)];
    writeWhole(this.path, `${lines.join("\n")}\n`);
    this.#lines = lines.length;
    this.#broken = false;
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // half written, when the disk was full
  }
}
