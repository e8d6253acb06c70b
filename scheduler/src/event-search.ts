/** The last events in the journal that somebody wants, found from its end: most of a long journal is never read. */
import type { Event } from "@warren/proto/common";
import type { JournalBatch, JournalReader, StoredRecord } from "@warren/store";

export interface Search {
  /** The newest sequence that counts. */
  readonly head: bigint;
  /** Only what comes after it. */
  readonly after: bigint;
  /** So many events. */
  readonly most: number;
  /** ms since 1970: nothing that was stored long before can be wanted. 0 for no bound. */
  readonly since: number;
  readonly read: (record: StoredRecord) => Event | undefined;
  readonly isWanted: (event: Event) => boolean;
}

/** Records of the first look back; each further one is larger by the factor. */
const firstLook = 1_000n;
const factor = 4n;
/** Clocks of producers and of the journal may differ by so much, in ms. */
const skewMs = 600_000;
/**
 * A journal that gives nothing for so long has nothing up to the head: its retention may have removed all of it, and a reader
 * would wait for what comes next.
 */
const nothingMs = 5_000;
/** Of all that is answered at once. */
const mostBytes = 32 * 1024 * 1024;

/** @returns the events, oldest first */
export async function lastEvents(
  journal: JournalReader,
  search: Search,
  signal: AbortSignal,
): Promise<Event[]> {
  let found: Event[] = [];
  let bytes = 0;
  let end = search.head;
  for (let size = firstLook; end > search.after && !signal.aborted; size *= factor) {
    let begin = end - size;
    if (begin < search.after) begin = search.after;
    const room = search.most - found.length;
    if (room <= 0 || bytes >= mostBytes) break;
    const part = await lastOf(journal, { ...search, after: begin, head: end, most: room }, signal);
    found = [...part.events, ...found];
    bytes += part.bytes;
    if (part.oldest < search.since - skewMs) break;
    end = begin;
  }
  return found;
}

/** What the journal has; ends once nothing came for a while. */
export async function* untilQuiet(
  journal: JournalReader,
  after: bigint,
  signal: AbortSignal,
  ms = nothingMs,
): AsyncGenerator<JournalBatch> {
  const quiet = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = () => {
    timer = setTimeout(() => quiet.abort(), ms);
  };
  try {
    wait();
    for await (const batch of journal.read({ after, signal: AbortSignal.any([signal, quiet.signal]) })) {
      clearTimeout(timer);
      yield batch; // whoever reads slowly is not taken for a quiet journal
      wait();
    }
  } finally {
    clearTimeout(timer);
  }
}

/** The last events of a part of the journal. */
async function lastOf(
  journal: JournalReader,
  { after, head, most, read, isWanted }: Search,
  signal: AbortSignal,
) {
  const kept: { readonly event: Event; readonly bytes: number }[] = [];
  let bytes = 0;
  let oldest = Number.POSITIVE_INFINITY;
  const drop = (n: number) => {
    for (const one of kept.splice(0, n)) bytes -= one.bytes;
  };
  const result = () => {
    drop(kept.length - most);
    return { events: kept.map(({ event }) => event), bytes, oldest };
  };
  for await (const { records } of untilQuiet(journal, after, signal)) {
    for (const record of records) {
      if (record.seq > head) return result();
      oldest = Math.min(oldest, record.storedAt);
      const event = read(record);
      if (event && isWanted(event)) {
        kept.push({ event, bytes: record.data.length });
        bytes += record.data.length;
        // Not one by one: that would move all others each time.
        if (kept.length > 2 * most + 100) drop(kept.length - most);
        while (bytes > mostBytes) drop(1);
      }
      if (record.seq >= head) return result();
    }
  }
  return result();
}
