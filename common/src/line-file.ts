/**
 * What a process holds, line by line on disk, so that the one after it finds it: each change is a line at the end, and the
 * file is written anew, with what is held only, when most of it says nothing any more. Writing never fails: on a full disk
 * the file is behind, says so, and is written whole as soon as there is room.
 */
import { appendFileSync } from "node:fs";
import { readIfThere, writeWhole } from "./files.ts";

export interface LineFileOptions {
  readonly path: string;
  /** How many lines are held, and which. */
  readonly held: () => number;
  readonly lines: () => readonly string[];
  /** Called when the file falls behind, once. */
  readonly onBehind: (error: Error) => void;
}

/** Lines that say nothing any more and yet are no reason to write the file anew. */
const slack = 1_000;

export class LineFile {
  readonly #options: LineFileOptions;
  /** In the file; until it was first written, and after {@link outdate}, more than are worth keeping. */
  #count = Number.POSITIVE_INFINITY;
  #behind = false;

  constructor(options: LineFileOptions) {
    this.#options = options;
  }

  /** Lines that another process left; the last may be half written, when the disk was full. */
  static read(path: string): string[] {
    return (readIfThere(path) ?? "").split("\n").filter((line) => line !== "");
  }

  /** Whether what is held is not all on disk. */
  get behind(): boolean {
    return this.#behind;
  }

  /** @param line is among those held, or says something of them */
  append(line: string): void {
    // Twice what is held: each time it is written anew is paid for by as many lines.
    if (this.#behind || this.#count > 2 * this.#options.held() + slack) {
      this.rewrite();
      return;
    }
    this.#try(() => {
      appendFileSync(this.#options.path, `${line}\n`, { mode: 0o600 });
      this.#count++;
    });
  }

  /** Lines were dropped that no later one takes back: the next change writes the file anew. */
  outdate(): void {
    this.#count = Number.POSITIVE_INFINITY;
  }

  rewrite(): void {
    this.#try(() => {
      const lines = this.#options.lines();
      writeWhole(this.#options.path, lines.map((line) => `${line}\n`).join(""));
      this.#count = lines.length;
      this.#behind = false;
    });
  }

  #try(write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!this.#behind) this.#options.onBehind(error as Error);
      this.#behind = true;
    }
  }
}

/** A line's JSON; undefined for one that is half written. */
export function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
