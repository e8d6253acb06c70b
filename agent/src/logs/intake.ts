/** Takes in one stream of an instance: reads its raw file on, and gives back what was read. */
import { type LogBounds, type LogStats, lastBytes } from "./bounds.ts";
import type { Dropped, RawLine, StreamMark, StreamName } from "./line.ts";
import { plan } from "./rate.ts";
import type { RawFile } from "./raw.ts";
import { LineSplitter } from "./splitter.ts";

export interface Taken {
  readonly lines: readonly RawLine[];
  /** Bytes that were read. */
  readonly read: number;
  /** Bytes that were passed over without reading them. */
  readonly skipped: number;
  /** Bytes that wait in the raw file. */
  readonly unread: number;
}

const nothingTaken: Taken = { lines: [], read: 0, skipped: 0, unread: 0 };
const nothingDropped: Dropped = { rate: 0, host: 0 };
const noFile = { size: 0, allocated: 0 };
/** Giving back less than this is not worth a call. */
const slackBytes = 256 * 1024;
/** A file is begun anew at this size, holes and all: ext4 ends at 16 TiB. */
const longestBytes = 2 ** 40;
/** The offset after a file was truncated: whatever its size is next, it is less, so that it is read from its start. */
const beyondAnyFile = Number.MAX_SAFE_INTEGER;

export class StreamIntake {
  readonly #splitter: LineSplitter;
  /** Read up to here, in the raw file. */
  #offset: number;
  #dropped: Dropped;
  /** What the lines taken last say was dropped. */
  #said = nothingDropped;
  #stat = noFile;
  /** It was opened anew; all before the offset was zeros then. */
  #mayBeEmptied = false;

  constructor(
    readonly stream: StreamName,
    private readonly raw: RawFile,
    private readonly bounds: LogBounds,
    private readonly stats: LogStats,
    mark: StreamMark,
  ) {
    this.#splitter = new LineSplitter(mark.skip);
    this.#offset = mark.offset;
    this.#dropped = mark.dropped;
  }

  /** From where to go on, once the lines taken so far are in the copy. */
  get mark(): StreamMark {
    const offset = this.#offset - this.#splitter.held.length;
    return { offset, skip: this.#splitter.skip, dropped: this.#dropped };
  }

  /** Whether there is anything to take in or to give back; to be asked before each take. */
  stirs(): boolean {
    this.#stat = this.raw.stat() ?? noFile;
    const isOver = this.#stat.allocated > this.#splitter.held.length + slackBytes;
    return this.#stat.size !== this.#offset || isOver || this.#isEmptied;
  }

  take(how: { readonly allowance: number; readonly starved: boolean; readonly last: boolean }): Taken {
    this.#said = nothingDropped;
    const { size } = this.#stat;
    const isEmptied = this.#isEmptied;
    if (size === this.#offset && !isEmptied) return nothingTaken;
    const ended: RawLine[] = [];
    if (isEmptied) {
      // It was truncated, by the tenant or by us.
      ended.push(...this.#splitter.rest());
      this.#offset = 0;
      this.#mayBeEmptied = false;
    }
    const { skip, read } = plan({ ...how, unread: size - this.#offset }, this.bounds);
    if (skip > 0) {
      ended.push(...this.#splitter.interrupt());
      this.#offset += skip;
      this.#drop("rate", skip);
    }
    const chunk = this.raw.read(this.#offset, read);
    this.#offset += chunk.length;
    this.stats.readBytes += chunk.length;
    const hole = zerosBefore(chunk);
    if (hole > 0) ended.push(...this.#splitter.rest());
    const fresh = this.#splitter.push(chunk.subarray(hole));
    this.#drop("rate", this.#splitter.takeGap());
    const remarks = fresh.length > 0 ? this.#remarks() : [];
    return {
      lines: [...ended, ...remarks, ...fresh],
      read: chunk.length,
      skipped: skip,
      unread: size - this.#offset,
    };
  }

  /** Nothing more will be written: the line without a newline, and what was dropped at the end. */
  finish(): RawLine[] {
    return [...this.#splitter.rest(), ...this.#remarks()];
  }

  /** The beginning of a line whose newline has not come yet. */
  get begun(): string {
    return this.#splitter.held.toString("utf8");
  }

  /** The lines taken last could not be kept. */
  lose(lines: readonly RawLine[]): void {
    const bytes = lines.reduce((sum, line) => sum + (line.ours ? 0 : line.bytes.length + 1), 0);
    const { rate, host } = this.#dropped;
    this.#dropped = { rate: rate + this.#said.rate, host: host + this.#said.host };
    this.#drop("host", bytes);
  }

  /** The last lines that are not taken in yet. They stay where they are. */
  peek(): RawLine[] {
    const size = this.raw.stat()?.size ?? 0;
    const offset = size < this.#offset ? 0 : this.#offset;
    const from = Math.max(offset, size - lastBytes);
    const unread = this.raw.read(from, size - from);
    const hole = zerosBefore(unread);
    const splitter = new LineSplitter(this.#splitter.skip);
    const lines = splitter.push(this.#splitter.held);
    if (from > offset) lines.push(...splitter.interrupt());
    if (hole > 0) lines.push(...splitter.rest());
    return [...lines, ...splitter.push(unread.subarray(hole)), ...splitter.rest()];
  }

  /** Gives back what stands in the copy. Where that cannot be done piece by piece, the file is cut at its bound. */
  giveBack(): void {
    const { offset } = this.mark;
    const { size } = this.#stat;
    let { allocated } = this.#stat;
    if (allocated > size - offset + slackBytes && this.raw.punch(Math.min(offset, size))) {
      allocated = this.raw.stat()?.allocated ?? 0;
    }
    // Over the bound nevertheless: there can be no holes here, or the tenant holds space beyond the end.
    const over = Math.max(allocated / this.bounds.rawBytes, size / longestBytes);
    if (over <= 1 || (size > this.#offset && over <= 2)) return;
    const unread = Math.max(0, (this.raw.stat()?.size ?? 0) - this.#offset);
    this.raw.truncate();
    this.#drop("host", unread);
    this.#offset = beyondAnyFile;
  }

  /**
   * It is about to be opened anew, perhaps to be emptied. What stands in it and is taken in gives way to zeros, so that
   * other bytes at its start say that it was, however much is written before the next look.
   */
  reopened(): void {
    const { size } = this.raw.stat() ?? noFile;
    if (size === 0 || size !== this.#offset) return;
    if (this.raw.punch(size)) this.#mayBeEmptied = true;
    else {
      this.raw.truncate();
      this.#offset = beyondAnyFile;
    }
  }

  get #isEmptied(): boolean {
    const { size } = this.#stat;
    if (size < this.#offset) return true;
    return this.#mayBeEmptied && size > 0 && this.raw.read(0, 1)[0] !== 0;
  }

  /** Whether its file is there and open. */
  get isOpen(): boolean {
    return this.raw.isOpen;
  }

  close(): void {
    this.raw.close();
  }

  removeRaw(): void {
    this.raw.remove();
  }

  #drop(why: keyof Dropped, bytes: number): void {
    if (bytes === 0) return;
    this.#dropped = { ...this.#dropped, [why]: this.#dropped[why] + bytes };
    this.stats.droppedBytes += bytes;
  }

  /** Lines that say what was dropped before those that come now. */
  #remarks(): RawLine[] {
    const { rate, host } = this.#dropped;
    this.#said = this.#dropped;
    this.#dropped = nothingDropped;
    const remark = (bytes: number, why: string): RawLine[] => {
      const text = `[warren] ${bytes} bytes of ${this.stream} were dropped here: ${why}`;
      return bytes > 0 ? [{ bytes: Buffer.from(text), cut: false, ours: true }] : [];
    };
    return [
      ...remark(rate, `more than ${this.bounds.bytesPerSecond} bytes a second were written`),
      ...remark(host, "this node could not keep them"),
    ];
  }
}

/** Holes read as zeros, and so does what was given back: no text begins with them. */
function zerosBefore(chunk: Buffer): number {
  let at = 0;
  while (at < chunk.length && chunk[at] === 0) at++;
  return at;
}
