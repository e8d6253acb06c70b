import { StoreInputError } from "./errors.ts";
import type { JournalRecord, ReadOptions } from "./store.ts";

/** The bounds of everything that a caller hands in. What is over one is refused with {@link StoreInputError}. */
export const LIMITS = {
  /** Bytes of one record's data. */
  recordDataBytes: 256 * 1024,
  recordHeaders: 32,
  recordHeaderValueBytes: 1024,
  /** Records and bytes of one `append`. */
  appendRecords: 4096,
  appendBytes: 32 * 1024 * 1024,
  /** Records and bytes that wait in this process to be stored; over it, appends answer "unavailable". */
  queuedRecords: 16_384,
  queuedBytes: 64 * 1024 * 1024,
  stateValueBytes: 512 * 1024,
  stateKeys: 1_000_000,
  blobBytes: 512 * 1024 * 1024,
  /** Records of one batch. */
  readBatch: 1024,
  /** Longest deadline a call may ask for: well below the window in which NATS recognises a repeated id. */
  deadlineMs: 60_000,
} as const;

/** Deadline of a call that names none, in milliseconds. */
export const DEFAULT_DEADLINE_MS = 5000;
export const DEFAULT_READ_BATCH = 256;

/** The state key that seals the log for a new lease holder; callers cannot write it. */
export const SEAL_KEY = "epoch";

const ID = /^[\x21-\x7e]{1,256}$/;
const SUBJECT = /^warren\.events(\.[a-zA-Z0-9_-]{1,128}){1,6}$/;
const HEADER_NAME = /^[a-z][a-z0-9-]{0,63}$/;
const CONTROL = /[\x00-\x1f\x7f]/;
const KEY = /^[a-zA-Z0-9_-]{1,128}(\.[a-zA-Z0-9_-]{1,128}){0,3}$/;
const BLOB_NAME = /^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,127}$/;
const DURABLE = /^[a-zA-Z0-9_-]{1,64}$/;
const CELL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Bytes that a record counts for against the bounds. */
export function recordBytes(record: JournalRecord): number {
  let bytes = record.data.byteLength + record.id.length + record.subject.length;
  for (const [name, value] of Object.entries(record.headers)) bytes += name.length + value.length;
  return bytes;
}

/** @throws StoreInputError naming the first record and field that is malformed or over a bound */
export function checkRecords(records: readonly JournalRecord[]): void {
  if (records.length > LIMITS.appendRecords) {
    throw new StoreInputError(
      `an append takes at most ${LIMITS.appendRecords} records, not ${records.length}`,
    );
  }
  let bytes = 0;
  for (const [index, record] of records.entries()) {
    const problem = recordProblem(record);
    if (problem !== undefined) throw new StoreInputError(`record ${index}: ${problem}`);
    bytes += recordBytes(record);
  }
  if (bytes > LIMITS.appendBytes) {
    throw new StoreInputError(`an append takes at most ${LIMITS.appendBytes} bytes, not ${bytes}`);
  }
}

function recordProblem(record: JournalRecord): string | undefined {
  if (!ID.test(record.id))
    return `id ${show(record.id)} is not 1 to 256 printable ASCII characters without spaces`;
  if (!SUBJECT.test(record.subject)) {
    return `subject ${show(record.subject)} is not warren.events.<tenant>.<type> of [a-zA-Z0-9_-] tokens`;
  }
  if (record.data.byteLength > LIMITS.recordDataBytes) {
    return `data has ${record.data.byteLength} bytes; at most ${LIMITS.recordDataBytes}`;
  }
  const headers = Object.entries(record.headers);
  if (headers.length > LIMITS.recordHeaders) {
    return `${headers.length} headers; at most ${LIMITS.recordHeaders}`;
  }
  for (const [name, value] of headers) {
    if (!HEADER_NAME.test(name)) return `header name ${show(name)} is not lower-case [a-z0-9-], at most 64`;
    // Those would be orders to the NATS server (roll up, expect a sequence), not data.
    if (name.startsWith("nats-")) return `header name ${show(name)} is reserved`;
    if (!value.isWellFormed() || CONTROL.test(value) || value !== value.trim()) {
      return `header ${name} has control characters, lone surrogates or outer spaces, which NATS does not carry`;
    }
    if (Buffer.byteLength(value) > LIMITS.recordHeaderValueBytes) {
      return `header ${name} has more than ${LIMITS.recordHeaderValueBytes} bytes`;
    }
  }
  return undefined;
}

/** @throws StoreInputError */
export function checkStateAppend(key: string, value: Uint8Array | null, expectedLastSeq: bigint): void {
  if (!KEY.test(key)) {
    throw new StoreInputError(
      `state key ${show(key)} is not 1 to 4 tokens of [a-zA-Z0-9_-]{1,128} joined by "."`,
    );
  }
  if (key === SEAL_KEY) throw new StoreInputError(`state key "${SEAL_KEY}" is the store's own`);
  if (value !== null && value.byteLength > LIMITS.stateValueBytes) {
    throw new StoreInputError(
      `state value of ${key} has ${value.byteLength} bytes; at most ${LIMITS.stateValueBytes}`,
    );
  }
  if (expectedLastSeq < 0n || expectedLastSeq > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new StoreInputError(`expectedLastSeq ${expectedLastSeq} is no sequence`);
  }
}

/** @throws StoreInputError */
export function checkBlobName(name: string): void {
  if (!BLOB_NAME.test(name)) {
    throw new StoreInputError(
      `blob name ${show(name)} is not 1 to 128 of [a-zA-Z0-9._-], not starting with "."`,
    );
  }
}

/** The name of the cell: a DNS label. @throws StoreInputError */
export function checkCell(cell: string): void {
  if (!CELL.test(cell))
    throw new StoreInputError(`cell ${show(cell)} is not a DNS label ([a-z0-9-], at most 63)`);
}

/** @throws StoreInputError */
export function checkDeadline(deadlineMs: number): number {
  if (!(deadlineMs > 0 && deadlineMs <= LIMITS.deadlineMs)) {
    throw new StoreInputError(`deadlineMs ${deadlineMs} is not above 0 and at most ${LIMITS.deadlineMs}`);
  }
  return deadlineMs;
}

/** Read options with the defaults filled in, and sequences as numbers (they stay below 2^53). */
export interface CheckedReadOptions {
  readonly durable: string | undefined;
  readonly after: number | "end";
  readonly subjectPrefix: string | undefined;
  readonly batch: number;
  readonly signal: AbortSignal;
}

/** @throws StoreInputError */
export function checkReadOptions(options: ReadOptions): CheckedReadOptions {
  const { durable, after = 0n, subjectPrefix, batch = DEFAULT_READ_BATCH, signal } = options;
  if (durable !== undefined && !DURABLE.test(durable)) {
    throw new StoreInputError(`durable ${show(durable)} is not [a-zA-Z0-9_-]{1,64}`);
  }
  if (subjectPrefix !== undefined && !SUBJECT.test(subjectPrefix)) {
    throw new StoreInputError(`subjectPrefix ${show(subjectPrefix)} is not warren.events.<tenant>`);
  }
  if (!Number.isInteger(batch) || batch < 1 || batch > LIMITS.readBatch) {
    throw new StoreInputError(`batch ${batch} is not 1 to ${LIMITS.readBatch}`);
  }
  if (after !== "end" && (after < 0n || after > BigInt(Number.MAX_SAFE_INTEGER))) {
    throw new StoreInputError(`after ${after} is no sequence`);
  }
  return { durable, after: after === "end" ? "end" : Number(after), subjectPrefix, batch, signal };
}

function show(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
