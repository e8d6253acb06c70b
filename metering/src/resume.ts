/**
 * Where to go on reading. A position is only worth something in the journal that it was taken from, and journals get
 * lost, recreated and restored; so the record at the position must still be the one that was counted. When in doubt
 * reading starts from the beginning: that costs time and never a wrong total (L1 in core/account.ts).
 */
import type { JournalReader, StoredRecord } from "@warren/store";
import type { Position } from "./ledger/ledger.ts";

/** How reading goes on, and what to tell the operator about it. */
export interface Resume {
  /** Read after this sequence. */
  readonly after: bigint;
  /** Set when the position could not be used as it was. */
  readonly warning?: string;
}

export interface ResumeOptions {
  readonly reader: JournalReader;
  readonly position: Position | undefined;
  readonly signal: AbortSignal;
  /** How long one look into the journal may take, in ms. */
  readonly lookMs: number;
}

/** Waits, until the signal aborts, for the journal to exist and to have a record: before, nothing can be said. */
export async function resumeAt(options: ResumeOptions): Promise<Resume> {
  const { position, signal } = options;
  if (position === undefined) return { after: 0n };
  const { seq, recordId } = position;
  while (!signal.aborted) {
    const first = await firstAfter(options, 0n);
    if (first === undefined) continue; // empty or away: the look has waited its time
    if (first.seq > seq) return { after: seq, warning: trimmed(first.seq, seq) };
    const counted = await firstAfter(options, seq - 1n);
    if (counted?.seq === seq && counted.id === recordId) return { after: seq };
    return { after: 0n, warning: otherJournal(counted, position) };
  }
  return { after: seq };
}

async function firstAfter(options: ResumeOptions, after: bigint): Promise<StoredRecord | undefined> {
  const { reader, signal, lookMs } = options;
  const look = AbortSignal.any([signal, AbortSignal.timeout(lookMs)]);
  for await (const { records } of reader.read({ after, batch: 1, signal: look })) return records[0];
  // Else whoever asks again would do so without a pause.
  if (!look.aborted) throw new Error("the journal's reader has ended");
  return undefined;
}

function trimmed(first: bigint, seq: bigint): string | undefined {
  const gone = first - seq - 1n;
  if (gone === 0n) return undefined;
  return `the journal begins at ${first} and was counted up to ${seq}: up to ${gone} records had been dropped from it before they were counted, or it is another journal`;
}

function otherJournal(found: StoredRecord | undefined, { seq, recordId }: Position): string {
  const what =
    found === undefined
      ? `the journal ends before ${seq}, up to which it was counted`
      : `the journal has another record than ${recordId} at ${seq}, up to which it was counted`;
  return `${what}: it is another one, or was restored; counting it from its beginning, which changes no total that is right`;
}
