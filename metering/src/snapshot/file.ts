/** Snapshots in files. */
import { createReadStream, createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { LedgerRow } from "../ledger/rows.ts";
import { fromLines, toLines } from "./format.ts";

/** Called now and then with the number of rows so far. */
export type Progress = (rows: number) => void;

const progressRows = 10_000;

/**
 * Writes them to the file (0600), which is there only when it is whole; "-" is standard output.
 * @param now ms since 1970
 * @returns how many
 * @throws what the rows throw, or the file system does
 */
export async function writeSnapshot(
  path: string,
  rows: AsyncIterable<LedgerRow>,
  now: number,
  progress?: Progress,
): Promise<number> {
  let count = 0;
  const counted = async function* () {
    for await (const row of rows) {
      if (++count % progressRows === 0) progress?.(count);
      yield row;
    }
  };
  const lines = Readable.from(toLines(counted(), now));
  if (path === "-") {
    await pipeline(lines, process.stdout, { end: false });
    return count;
  }
  const partial = `${path}.${process.pid}.partial`; // two may write the same at once: the last one stands
  try {
    await pipeline(lines, createWriteStream(partial, { mode: 0o600, flush: true }));
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
  return count;
}

/** "-" is standard input. @throws SnapshotError, or what the file system throws */
export async function* readSnapshot(path: string, progress?: Progress): AsyncGenerator<LedgerRow, void> {
  const input = path === "-" ? process.stdin : createReadStream(path);
  let count = 0;
  for await (const row of fromLines(linesOf(input))) {
    if (++count % progressRows === 0) progress?.(count);
    yield row;
  }
}

async function* linesOf(input: NodeJS.ReadableStream): AsyncGenerator<string, void> {
  // The reader of lines does not tell of the input's failure by itself.
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  input.once("error", failed.reject);
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
  for (;;) {
    const { value, done } = await Promise.race([lines.next(), failed.promise]);
    if (done) return;
    yield value;
  }
}
