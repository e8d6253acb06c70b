/** The log file of a child of `warren up`: bounded, and what its newest process said last. */
import { copyFileSync, existsSync, readFileSync, renameSync, statSync, truncateSync } from "node:fs";

/** A file this large is begun anew; this many older ones are kept. */
export const logBounds = { bytes: 16 * 1024 * 1024, files: 3 } as const;

/**
 * Begins the file anew if it has grown too large: `x.log` becomes `x.log.1`, that `x.log.2`, and so on. The child has the
 * file open and appends to it, so it is copied and truncated; a line written in between may be lost.
 */
export function rotateLog(
  file: string,
  { bytes, files }: { bytes: number; files: number } = logBounds,
): boolean {
  if (sizeOf(file) < bytes) return false;
  for (let n = files - 1; n >= 1; n--) {
    if (existsSync(`${file}.${n}`)) renameSync(`${file}.${n}`, `${file}.${n + 1}`);
  }
  copyFileSync(file, `${file}.1`);
  truncateSync(file, 0);
  return true;
}

/** Bytes that it holds; 0 if it is not there. */
export function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/**
 * The end of what was written since the file had `from` bytes, as far as it is of use to a person: errors in words, log
 * lines by their message.
 */
export function lastWords(file: string, from: number): string {
  const bytes = readFileSync(file);
  const lines = bytes
    .subarray(from <= bytes.length ? from : 0)
    .toString("utf8")
    .trimEnd()
    .split("\n")
    .slice(-8);
  return lines.map(inWords).join("\n");
}

function inWords(line: string): string {
  try {
    const { level, msg, err } = JSON.parse(line) as { level: string; msg: string; err?: { message: string } };
    return `${level}: ${msg}${err ? `: ${err.message}` : ""}`;
  } catch {
    return line; // not a log line of Warren: shown as it is
  }
}
