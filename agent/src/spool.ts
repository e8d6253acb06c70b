/**
 * Records for the scheduler, on disk until it has acknowledged them (rule 8). Each has a number that only rises, in a
 * stream that is named at each start of the agent: what an agent before this one has told while its disk was full is not
 * known, and an id that is given twice would make the second record pass for a repeat. Bounded: usage is cumulative, so of an instance only the newest need
 * be kept; a transition is never dropped: when they alone fill the spool, new starts are refused.
 */
import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { LineFile, parseLine } from "@warren/common/line-file";
import type { Logger } from "@warren/common/log";
import { toTimestamp } from "@warren/common/time";
import { InstanceState, type Transition } from "@warren/proto/common";
import { type NodeRecord, NodeRecordSchema } from "@warren/proto/scheduler";
import { messageOf } from "./files.ts";

export type What = NonNullable<NodeRecord["what"]> & { case: "transition" | "usage" | "storage" };

interface Entry {
  /** Which run of numbers its own belongs to. */
  readonly stream: string;
  readonly record: NodeRecord;
  readonly line: string;
}

/** Records of one stream, in order. */
export interface SpoolBatch {
  readonly stream: string;
  readonly records: NodeRecord[];
}

/** Lines of the file that are no records: from here on they are of that stream; up to there they are acknowledged. */
type Note =
  | { readonly stream: string; readonly ack?: undefined }
  | { readonly stream?: string; readonly ack: string };

/** An instance that lives may still have this many transitions to tell. */
const transitionsPerInstance = 4;

export class Spool {
  readonly #stream = ulid();
  #entries: Entry[] = [];
  #transitions = 0;
  #next = 1n;
  readonly #file: LineFile;
  readonly #listeners = new Set<() => void>();

  constructor(
    path: string,
    log: Logger,
    /** Records kept at most. */
    readonly bound = 20_000,
  ) {
    this.#file = new LineFile({
      path,
      held: () => this.#entries.length,
      lines: () => this.#lines(),
      onBehind: (error) =>
        log.error({ why: messageOf(error) }, "the spool cannot be written: no new instance is started"),
    });
    let stream = "";
    for (const line of LineFile.read(path)) {
      const value = parseLine(line) as Note | JsonValue | undefined;
      if (isNote(value)) {
        if (value.ack !== undefined) this.#forget(value.stream ?? stream, BigInt(value.ack));
        else stream = value.stream;
        continue;
      }
      try {
        this.#push({ stream, record: fromJson(NodeRecordSchema, value as JsonValue), line });
      } catch (error) {
        log.error({ why: messageOf(error) }, "a line of the spool cannot be read; it is left out");
      }
    }
    this.#file.rewrite();
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Whether a new instance's transitions might not fit. */
  isFull(liveInstances: number): boolean {
    if (this.#file.behind) this.#file.rewrite(); // is there room again?
    return this.#file.behind || this.#transitions + (liveInstances + 1) * transitionsPerInstance > this.bound;
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
    const entry = { stream: this.#stream, record, line: JSON.stringify(toJson(NodeRecordSchema, record)) };
    this.#push(entry);
    if (this.#entries.length > this.bound) this.#dropUsage();
    this.#file.append(entry.line);
    for (const listener of this.#listeners) listener();
  }

  /** Calls back at each append. */
  onAppend(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** The oldest records, as many as fit. */
  batch(maxRecords: number, maxBytes: number): SpoolBatch {
    const stream = this.#entries[0]?.stream ?? this.#stream;
    const records: NodeRecord[] = [];
    let bytes = 0;
    for (const entry of this.#entries) {
      bytes += entry.line.length;
      const isFull = records.length > 0 && (records.length >= maxRecords || bytes > maxBytes);
      if (isFull || entry.stream !== stream) break;
      records.push(entry.record);
    }
    return { stream, records };
  }

  /** Records of that stream up to this number need not be kept. */
  ack(stream: string, seq: bigint): void {
    if (this.#forget(stream, seq)) this.#file.append(JSON.stringify({ stream, ack: String(seq) }));
  }

  #push(entry: Entry): void {
    this.#entries.push(entry);
    if (entry.record.what.case === "transition") this.#transitions++;
  }

  #forget(stream: string, seq: bigint): boolean {
    let count = 0;
    for (const entry of this.#entries) {
      if (entry.stream !== stream || entry.record.seq > seq) break;
      if (entry.record.what.case === "transition") this.#transitions--;
      count++;
    }
    if (count > 0) this.#entries = this.#entries.slice(count);
    return count > 0;
  }

  /** Of each instance and each volume only the newest counters stay; and if that is not enough, none that is older than a transition. */
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
      } else if (what.case === "storage") {
        if (newest.has(what.value.volume)) continue;
        newest.add(what.value.volume);
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
    this.#file.outdate(); // it still has them
  }

  #lines(): string[] {
    const lines: string[] = [];
    let current = "";
    const note = (stream: string) => {
      if (stream !== current) lines.push(JSON.stringify({ stream }));
      current = stream;
    };
    for (const { stream, line } of this.#entries) {
      note(stream);
      lines.push(line);
    }
    note(this.#stream); // what is appended is of this one
    return lines;
  }
}

function isNote(value: Note | JsonValue | undefined): value is Note {
  return typeof value === "object" && value !== null && ("ack" in value || "stream" in value);
}
