/** The agent's own copy of an instance's output: both streams in the order of reading, in a few files of bounded size. */
import { closeSync, constants, ftruncateSync, openSync, rmSync, truncateSync, writeSync } from "node:fs";
import type { LogBounds } from "./bounds.ts";
import { copyNumbers, copyPath, linesBackwards } from "./files.ts";
import { encodeMark, type Mark, noMark, parseMark } from "./line.ts";

export class Copy {
  /** Of the file that is written, 0 before the first. */
  #number = 0;
  #size = 0;
  #mark: Mark = noMark;
  /** The file may end in half a batch that could not be taken back. */
  #spoilt = false;

  private constructor(
    private readonly directory: string,
    private readonly bounds: LogBounds,
  ) {}

  /** Goes on where the last agent stopped; what it wrote after its last mark is taken back, since it is read again. */
  static open(directory: string, bounds: LogBounds): Copy {
    const copy = new Copy(directory, bounds);
    for (const number of copyNumbers(directory).reverse()) {
      const path = copyPath(directory, number);
      for (const { bytes, end } of linesBackwards(path)) {
        const mark = parseMark(bytes);
        if (!mark) continue;
        truncateSync(path, end);
        copy.#number = number;
        copy.#size = end;
        copy.#mark = mark;
        return copy;
      }
      rmSync(path); // the agent died as it began this file
    }
    return copy;
  }

  /** As of the last batch that was written. */
  get mark(): Mark {
    return this.#mark;
  }

  /**
   * Writes a batch of lines and the mark after them, all or nothing.
   * @returns why not, where it was not possible
   */
  append(lines: readonly Buffer[], mark: Mark): Error | undefined {
    const batch = Buffer.concat([...lines, Buffer.from(encodeMark(mark))]);
    const fits = this.#number > 0 && !this.#spoilt && this.#size + batch.length <= this.bounds.fileBytes;
    try {
      if (fits) this.#write(this.#number, this.#size, batch);
      else this.#begin(Buffer.concat([Buffer.from(encodeMark(this.#mark)), batch]));
    } catch (error) {
      return error as Error;
    }
    this.#mark = mark;
    return undefined;
  }

  #begin(bytes: Buffer): void {
    const number = this.#number + 1;
    this.#write(number, 0, bytes);
    try {
      for (const old of copyNumbers(this.directory)) {
        if (old <= number - this.bounds.files) rmSync(copyPath(this.directory, old), { force: true });
      }
    } catch {
      // The batch is written all the same; the next file that is begun removes what this one could not.
    }
  }

  #write(number: number, size: number, bytes: Buffer): void {
    const path = copyPath(this.directory, number);
    const how = constants.O_CREAT | (size === 0 ? constants.O_TRUNC : constants.O_APPEND);
    const fd = openSync(path, constants.O_WRONLY | how, 0o600);
    try {
      for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
    } catch (error) {
      if (size === 0) rmSync(path, { force: true });
      else this.#takeBack(fd, size);
      throw error;
    } finally {
      closeSync(fd);
    }
    this.#number = number;
    this.#size = size + bytes.length;
    this.#spoilt = false;
  }

  #takeBack(fd: number, size: number): void {
    try {
      ftruncateSync(fd, size);
    } catch {
      this.#spoilt = true;
    }
  }
}
