/** Reads a copy forwards, from some lines before its end, over its files as they come and go. */
import { chunkBytes } from "./bounds.ts";
import { copyNumbers, copyPath, linesBackwards, readPiece } from "./files.ts";
import { isMark, type Line, parseLine, parseMark, stampOf } from "./line.ts";

const newline = 0x0a;
/** Others have their turn after as many bytes. */
const turnBytes = 1024 * 1024;

export class CopyReader {
  private constructor(
    private readonly directory: string,
    /** The file that is read, and where; 0 before the first. */
    private number: number,
    private offset: number,
    /** Lines before this place, since the copy's beginning. */
    private passed: number,
  ) {}

  /**
   * @param since ms since 1970: lines that were read before are not wanted
   * @returns a reader at the last lines, and how many those are
   */
  static async atTail(
    directory: string,
    count: number,
    since = 0,
  ): Promise<{ reader: CopyReader; found: number }> {
    let found = 0;
    let place = { number: 0, offset: 0 };
    let seen = 0;
    let total: number | undefined;
    let read = 0;
    let most = count;
    for (const number of copyNumbers(directory).reverse()) {
      for (const { bytes, start, end } of linesBackwards(copyPath(directory, number))) {
        if (place.number === 0) place = { number, offset: end };
        if (isMark(bytes)) total ??= (parseMark(bytes)?.lines ?? 0) + seen;
        else {
          seen++;
          if (stampOf(bytes) < since) most = found;
          if (found < most) {
            found++;
            place = { number, offset: start };
          }
        }
        if (found >= most && total !== undefined) break;
        read += end - start;
        if (read < turnBytes) continue;
        read = 0;
        await new Promise(setImmediate);
      }
      if (found >= most && total !== undefined) break;
    }
    const reader = new CopyReader(directory, place.number, place.offset, (total ?? seen) - found);
    return { reader, found };
  }

  /** The next lines, a bounded number; none when there are no more yet. */
  next(now: () => number): Line[] {
    for (;;) {
      const piece = this.number > 0 ? readPiece(this.#path, this.offset, chunkBytes) : undefined;
      const end = (piece?.lastIndexOf(newline) ?? -1) + 1;
      if (piece && end > 0) {
        this.offset += end;
        const lines = this.#parse(piece.subarray(0, end));
        if (lines.length > 0) return lines;
        continue;
      }
      const next = copyNumbers(this.directory).find((number) => number > this.number);
      if (next === undefined) return [];
      this.number = next;
      this.offset = 0;
      const header = readPiece(this.#path, 0, 256);
      const before = (header && parseMark(header.subarray(0, header.indexOf(newline)))?.lines) ?? this.passed;
      const lost = before - this.passed;
      this.passed = before;
      if (lost > 0) {
        const text = `[warren] ${lost} lines were rotated away before they were read`;
        return [{ stream: "stdout", at: now(), text, cut: false }];
      }
    }
  }

  get #path(): string {
    return copyPath(this.directory, this.number);
  }

  #parse(bytes: Buffer): Line[] {
    const lines: Line[] = [];
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(newline, start);
      const line = parseLine(bytes.subarray(start, end));
      if (line) lines.push(line);
      start = end + 1;
    }
    this.passed += lines.length;
    return lines;
  }
}
