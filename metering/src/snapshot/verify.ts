/**
 * Proves a ledger: a snapshot of it, or nothing, and the journal's records up to where it has counted are
 * counted into a scratch ledger, which must then hold the same.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JournalReader } from "@warren/store";
import type { Ledger } from "../ledger/ledger.ts";
import type { AccountRow, LedgerRow, PositionRow } from "../ledger/rows.ts";
import { SqliteLedger } from "../ledger/sqlite/ledger.ts";
import { sqliteRows } from "../ledger/sqlite/rows.ts";
import { resumeAt } from "../resume.ts";

export interface VerifyOptions {
  /** The ledger's rows, as they stand at one moment. */
  readonly live: AsyncGenerator<LedgerRow, void>;
  /** Rows of an earlier snapshot; absent: the journal goes back to the beginning. */
  readonly from?: AsyncIterable<LedgerRow>;
  readonly reader: JournalReader;
  /** The journal's name in the ledger. */
  readonly source: string;
  readonly signal: AbortSignal;
  /** Called with the number of records counted so far, and how many there will be at most. */
  readonly progress?: (records: number, of: number) => void;
}

export interface Verified {
  /** Records that were counted again. */
  readonly records: number;
  /** Rows that were compared. */
  readonly rows: number;
  /** The first difference, in a sentence; nothing when there is none. */
  readonly difference: string | undefined;
}

/** It cannot be proven with what was given. */
export class VerifyError extends Error {
  override readonly name = "VerifyError";
}

const batchRecords = 512;
/** Of one look into the journal, in ms. */
const lookMs = 5_000;
/** A journal that gives nothing for so long, in ms, has no more. */
const quietMs = 10_000;

/**
 * Both are folded to the end before they are compared, which one process did sooner than the other.
 * @throws VerifyError naming what is missing; what the ledger, the snapshot and the journal throw
 */
export async function verifyLedger(options: VerifyOptions): Promise<Verified> {
  const directory = mkdtempSync(join(tmpdir(), "warren-verify-"));
  const [copy, again] = [join(directory, "copy"), join(directory, "again")];
  const { live, from, source } = options;
  try {
    const { position, foldAfter } = await copyOf(live, copy, source);
    await using has = SqliteLedger.open(copy, foldAfter);
    await using should = SqliteLedger.open(again, foldAfter);
    if (from) await should.restore(from);
    const records = await recount(should, position, options);
    for (const ledger of [has, should]) while ((await ledger.fold()).more);
    return { records, ...(await compare(sqliteRows(copy), sqliteRows(again))) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Copies the ledger as it stands. */
async function copyOf(live: AsyncIterable<LedgerRow>, directory: string, source: string) {
  let position: PositionRow | undefined;
  let foldAfter: number | undefined;
  await using copy = SqliteLedger.open(directory);
  await copy.restore(
    (async function* () {
      for await (const row of live) {
        if (row.table === "position" && row.source === source) position = row;
        if (row.table === "clock") foldAfter = row.foldAfter;
        // Positions come first: without one the rest is of no use.
        else if (row.table !== "position" && !position) break;
        yield row;
      }
    })(),
  );
  if (!position) {
    throw new VerifyError(`the ledger has counted nothing of ${source}: name the journal as metering does`);
  }
  return { position, foldAfter };
}

/** Counts the journal's records up to that position, the last one included. */
async function recount(
  scratch: Ledger,
  { seq, recordId }: PositionRow,
  options: VerifyOptions,
): Promise<number> {
  const { reader, source, signal, progress } = options;
  const position = await scratch.position(source);
  if (position && position.seq > seq) throw new VerifyError("the snapshot is newer than the ledger");
  if (position?.seq === seq) return 0;
  const { after, warning } = await resumeAt({ reader, position, signal, lookMs });
  if (warning) throw new VerifyError(`the snapshot cannot be continued with this journal: ${warning}`);
  let counted = 0;
  const quiet = new AbortController();
  const timer = setTimeout(() => quiet.abort(), quietMs);
  try {
    const reading = AbortSignal.any([signal, quiet.signal]);
    for await (const { records } of reader.read({ after, batch: batchRecords, signal: reading })) {
      timer.refresh();
      if (counted === 0 && !position && records[0]!.seq !== 1n) {
        throw new VerifyError(
          `the journal begins at ${records[0]!.seq}: what was before it is not known; give a snapshot from before`,
        );
      }
      const wanted = records.filter((record) => record.seq <= seq);
      if (wanted.length > 0) await scratch.count(source, wanted);
      counted += wanted.length;
      progress?.(counted, Number(seq - after));
      const last = wanted.at(-1);
      if (last?.seq === seq && last.id !== recordId) {
        throw new VerifyError(
          `the journal has another record than ${recordId} at ${seq}: it is another journal`,
        );
      }
      if (records.at(-1)!.seq >= seq) return counted;
    }
  } finally {
    clearTimeout(timer);
  }
  signal.throwIfAborted();
  throw new VerifyError(
    `the journal gave nothing more within ${quietMs / 1_000} s, and ${seq} was counted: is it this one?`,
  );
}

/** What is billed. Ids seen and what was odd depend on how often, and in which batches, a record was read. */
const compared: ReadonlySet<LedgerRow["table"]> = new Set(["account", "posting"]);

async function compare(
  live: AsyncIterable<LedgerRow>,
  scratch: AsyncIterable<LedgerRow>,
): Promise<{ rows: number; difference: string | undefined }> {
  const left = only(live);
  const right = only(scratch);
  try {
    for (let rows = 0; ; rows++) {
      const [a, b] = [await left.next(), await right.next()];
      if (a.done && b.done) return { rows, difference: undefined };
      const [has, should] = [shown(a), shown(b)];
      if (has !== should) {
        return { rows, difference: `the ledger has ${has}, the journal gives ${should}` };
      }
    }
  } finally {
    await right.return();
  }
}

async function* only(rows: AsyncIterable<LedgerRow>): AsyncGenerator<LedgerRow, void> {
  for await (const row of rows) if (compared.has(row.table)) yield row;
}

function shown({ value, done }: IteratorResult<LedgerRow, void>): string {
  if (done || !value) return "nothing more";
  const billed = value.table === "account" ? billedOf(value) : value;
  return JSON.stringify(billed, (_, field) => (typeof field === "bigint" ? `${field}` : field));
}

/** The rest says what is to be folded when: compared is what comes of it. */
const billedOf = ({ table, account, tenant, started, used }: AccountRow) => ({
  table,
  account,
  tenant,
  started,
  used,
});
