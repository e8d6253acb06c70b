/** The files of a copy, `log.1`, `log.2` …, of which the oldest go; and their lines from the end. */
import { closeSync, fstatSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { isMissing } from "../files.ts";
import { chunkBytes } from "./bounds.ts";
import { type Line, parseLine } from "./line.ts";

const newline = 0x0a;

/** Their numbers, oldest first. */
export function copyNumbers(directory: string): number[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
  const numbers = names.flatMap((name) => /^log\.([1-9]\d{0,14})$/.exec(name)?.[1] ?? []);
  return numbers.map(Number).sort((a, b) => a - b);
}

export function copyPath(directory: string, number: number): string {
  return join(directory, `log.${number}`);
}

/** Bytes of a whole copy. */
export function copyBytes(directory: string): number {
  return copyNumbers(directory).reduce((sum, number) => {
    const found = statSync(copyPath(directory, number), { throwIfNoEntry: false });
    return sum + (found?.size ?? 0);
  }, 0);
}

/** A piece of a file; undefined where there is no such file. */
export function readPiece(path: string, offset: number, bytes: number): Buffer | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  try {
    const buffer = Buffer.allocUnsafe(bytes);
    return buffer.subarray(0, readSync(fd, buffer, 0, bytes, offset));
  } finally {
    closeSync(fd);
  }
}

export interface PlacedLine {
  /** Without the newline. */
  readonly bytes: Buffer;
  /** Where it begins and where the next one does, in bytes. */
  readonly start: number;
  readonly end: number;
}

/** The lines of a file, last one first; what follows the last newline was never finished and is passed over. */
export function* linesBackwards(path: string): Generator<PlacedLine, void, undefined> {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  try {
    let at = fstatSync(fd).size;
    let rest = Buffer.alloc(0); // the end of a line whose beginning is not read yet, its newline included
    while (at > 0) {
      const piece = Buffer.allocUnsafe(Math.min(chunkBytes, at));
      const start = at - piece.length;
      readSync(fd, piece, 0, piece.length, start);
      const bytes = Buffer.concat([piece, rest]);
      let end = bytes.lastIndexOf(newline) + 1;
      while (end > 0) {
        const before = end > 1 ? bytes.lastIndexOf(newline, end - 2) : -1;
        if (before < 0 && start > 0) break;
        yield { bytes: bytes.subarray(before + 1, end - 1), start: start + before + 1, end: start + end };
        end = before + 1;
      }
      rest = bytes.subarray(0, end);
      at = start;
    }
  } finally {
    closeSync(fd);
  }
}

/** The last lines of output of a copy, oldest first. For few of them: it reads all at once. */
export function lastLines(directory: string, count: number): Line[] {
  const found: Line[] = [];
  for (const number of copyNumbers(directory).reverse()) {
    for (const { bytes } of linesBackwards(copyPath(directory, number))) {
      const line = parseLine(bytes);
      if (line && found.push(line) === count) return found.reverse();
    }
  }
  return found.reverse();
}
