import { lineBytes } from "./bounds.ts";
import type { RawLine, Skip } from "./line.ts";

const newline = 0x0a;

/** Bytes in, lines out; of a line that is too long the rest is left out, so that it holds a bounded amount. */
export class LineSplitter {
  #held: Buffer = Buffer.alloc(0);
  #gapBytes = 0;
  #skip: Skip;

  constructor(skip: Skip = "nothing") {
    this.#skip = skip;
  }

  get skip(): Skip {
    return this.#skip;
  }

  /** The beginning of a line whose newline has not come yet. */
  get held(): Buffer {
    return this.#held;
  }

  /** Lines without their newlines, which may be views of the bytes. */
  push(bytes: Buffer): RawLine[] {
    const lines: RawLine[] = [];
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(newline, start);
      const part = bytes.subarray(start, end < 0 ? bytes.length : end);
      if (this.#skip === "nothing") this.#add(part, end >= 0, lines);
      else {
        if (this.#skip === "gap") this.#gapBytes += part.length + (end < 0 ? 0 : 1);
        if (end >= 0) this.#skip = "nothing";
      }
      start += part.length + 1;
    }
    return lines;
  }

  /** The last line, if it has no newline; what comes then begins a line. */
  rest(): RawLine[] {
    this.#skip = "nothing";
    return this.#take(false);
  }

  /** Bytes are missing from here on: the line that has begun is cut, and what comes is left out until the next newline. */
  interrupt(): RawLine[] {
    this.#skip = "gap";
    return this.#take(true);
  }

  /** Bytes left out after a gap since it was last asked. */
  takeGap(): number {
    const bytes = this.#gapBytes;
    this.#gapBytes = 0;
    return bytes;
  }

  #add(part: Buffer, whole: boolean, lines: RawLine[]): void {
    const room = lineBytes - this.#held.length;
    if (part.length > room) {
      lines.push({ bytes: this.#joined(part.subarray(0, room)), cut: true });
      this.#held = Buffer.alloc(0);
      if (!whole) this.#skip = "cut";
    } else if (whole) {
      lines.push({ bytes: this.#joined(part), cut: false });
      this.#held = Buffer.alloc(0);
    } else {
      this.#held = Buffer.concat([this.#held, part]); // a copy: nobody else's buffer is kept
    }
  }

  #joined(part: Buffer): Buffer {
    return this.#held.length === 0 ? part : Buffer.concat([this.#held, part]);
  }

  #take(cut: boolean): RawLine[] {
    const bytes = this.#held;
    this.#held = Buffer.alloc(0);
    return bytes.length > 0 ? [{ bytes, cut }] : [];
  }
}
