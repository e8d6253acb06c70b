/**
 * Output of instances. Each writes to two raw files of its own, opened for append: not to pipes, which would block it
 * when nobody reads and break when the agent dies. The agent reads them when asked, and cuts them at a bound.
 */
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { pause } from "@warren/common/time";
import { isMissing, makePrivateDirectory, removeTree } from "./files.ts";

export const streams = ["stdout", "stderr"] as const;
export type StreamName = (typeof streams)[number];

export interface Line {
  readonly stream: StreamName;
  /** When the agent read it, ms since 1970. */
  readonly at: number;
  readonly text: string;
  /** It was longer than the bound on lines and is cut. */
  readonly cut: boolean;
}

export interface LogBounds {
  /** Of one raw file, after which it is cut to a quarter, in bytes. */
  readonly fileBytes: number;
  /** Ended instances per tenant whose output is kept. */
  readonly keepPerTenant: number;
  /** Ended instances in all whose output is kept. */
  readonly keepInAll: number;
}

export const defaultLogBounds: LogBounds = {
  fileBytes: 16 * 1024 * 1024,
  keepPerTenant: 3,
  keepInAll: 1_000,
};

/** Longest line; the rest of a longer one is left out. */
export const lineBytes = 16 * 1024;
/** Read at most this much of the past per stream. */
const tailBytes = 8 * 1024 * 1024;
const chunkBytes = 64 * 1024;
/** A batch of lines holds at most these many, and about as many bytes. */
export const batchLines = 256;
const batchBytes = 512 * 1024;
const followEveryMs = 50;

/** The raw files of one instance. */
export class InstanceLogs {
  /** Raised when a raw file was cut: whoever follows begins again at its start. */
  readonly #cuts: Record<StreamName, number> = { stdout: 0, stderr: 0 };

  constructor(readonly directory: string) {}

  path(stream: StreamName): string {
    return join(this.directory, `${stream}.log`);
  }

  cuts(stream: StreamName): number {
    return this.#cuts[stream];
  }

  /**
   * Cuts a raw file that has outgrown the bound: its end goes to a second file, after a line that says how much was
   * dropped before it. O_APPEND lets the tenant go on writing at the new end.
   */
  enforceBound(fileBytes: number): void {
    for (const stream of streams) {
      const path = this.path(stream);
      const size = sizeOf(path);
      if (size <= fileBytes) continue;
      const end = readRange(path, size - Math.floor(fileBytes / 4), size);
      const kept = end.subarray(end.indexOf(0x0a) + 1); // whole lines only
      const dropped = sizeOf(path) - kept.length; // what came in since is dropped too, and counted
      const said = Buffer.from(`[warren] ${dropped} bytes of ${stream} were dropped here\n`);
      try {
        writeFileSync(`${path}.old`, Buffer.concat([said, kept]), { mode: 0o600 });
      } finally {
        // On a full disk too, which this very file may have filled.
        truncateSync(path, 0);
        this.#cuts[stream]++;
      }
    }
  }

  /** The last lines; of both streams, a fair share of each, since nothing says in which order they were written. */
  tail(count: number, at: number): Line[] {
    const out = this.#lastLines("stdout", count, at);
    const err = this.#lastLines("stderr", count, at);
    const errShare = Math.min(err.length, Math.max(Math.floor(count / 2), count - out.length));
    const outShare = Math.min(out.length, count - errShare);
    return [...out.slice(out.length - outShare), ...err.slice(err.length - errShare)];
  }

  /** For the record of a failure: at most 20 lines of at most 1 KiB. */
  lastOutput(): string[] {
    return this.tail(20, 0).map(({ text }) => text.slice(0, 1024));
  }

  #lastLines(stream: StreamName, count: number, at: number): Line[] {
    if (count === 0) return [];
    const path = this.path(stream);
    const size = sizeOf(path);
    // Most tails are short: first as many bytes as likely hold them, then as many as allowed.
    for (const bytes of [Math.min(tailBytes, count * 256), tailBytes]) {
      const current = readRange(path, Math.max(0, size - bytes), size);
      const oldSize = sizeOf(`${path}.old`);
      const fromOld = bytes - current.length;
      const old =
        fromOld > 0 ? readRange(`${path}.old`, Math.max(0, oldSize - fromOld), oldSize) : Buffer.alloc(0);
      const wholeFile = current.length + old.length >= size + oldSize;
      const splitter = new LineSplitter(stream);
      const lines = [...splitter.push(Buffer.concat([old, current]), at), ...splitter.rest(at)];
      // Where the reading began there is half a line, unless it began at the beginning.
      if (!wholeFile) lines.shift();
      if (wholeFile || lines.length >= count || bytes === tailBytes) return lines.slice(-count);
    }
    return [];
  }

  /**
   * The last lines, and then the new ones until the instance has ended or the signal aborts. In batches, of which one at
   * a time is held: a reader that is slow slows only itself.
   * @param ended whether nothing more will be written
   */
  async *read(
    options: { readonly tail: number; readonly follow: boolean; readonly ended: () => boolean },
    now: () => number,
    signal: AbortSignal,
  ): AsyncGenerator<Line[], void, undefined> {
    const followed = streams.map((stream) => ({
      stream,
      offset: sizeOf(this.path(stream)),
      cuts: this.cuts(stream),
      splitter: new LineSplitter(stream),
    }));
    const past = this.tail(options.tail, now());
    for (let i = 0; i < past.length; i += batchLines) yield past.slice(i, i + batchLines);
    while (options.follow && !signal.aborted) {
      const ended = options.ended(); // asked before reading: what it wrote last is then in the file
      const lines: Line[] = [];
      for (const one of followed) {
        const path = this.path(one.stream);
        const size = sizeOf(path);
        if (one.cuts !== this.cuts(one.stream) || size < one.offset) {
          one.offset = 0;
          one.cuts = this.cuts(one.stream);
        }
        const chunk = readRange(path, one.offset, Math.min(size, one.offset + batchBytes));
        one.offset += chunk.length;
        lines.push(...one.splitter.push(chunk, now()));
        if (ended && one.offset >= size) lines.push(...one.splitter.rest(now()));
      }
      for (let i = 0; i < lines.length; i += batchLines) yield lines.slice(i, i + batchLines);
      if (lines.length > 0) continue;
      if (ended) return;
      await pause(followEveryMs, signal);
    }
  }
}

/** Bytes in, lines out; of a line that is too long the rest is left out, so that it holds a bounded amount. */
export class LineSplitter {
  #held: Buffer[] = [];
  #heldBytes = 0;
  #overlong = false;

  constructor(private readonly stream: StreamName) {}

  push(bytes: Uint8Array, at: number): Line[] {
    const lines: Line[] = [];
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(0x0a, start);
      this.#hold(bytes.subarray(start, end < 0 ? bytes.length : end));
      if (end < 0) return lines;
      lines.push(this.#take(at));
      start = end + 1;
    }
  }

  /** The last line, if it has no newline. */
  rest(at: number): Line[] {
    return this.#heldBytes > 0 ? [this.#take(at)] : [];
  }

  #hold(part: Uint8Array): void {
    const room = lineBytes - this.#heldBytes;
    if (part.length > room) this.#overlong = true;
    if (part.length === 0 || room === 0) return;
    const kept = Buffer.from(part.subarray(0, room));
    this.#held.push(kept);
    this.#heldBytes += kept.length;
  }

  #take(at: number): Line {
    const text = Buffer.concat(this.#held).toString("utf8");
    const line = {
      stream: this.stream,
      at,
      text: text.endsWith("\r") ? text.slice(0, -1) : text,
      cut: this.#overlong,
    };
    this.#held = [];
    this.#heldBytes = 0;
    this.#overlong = false;
    return line;
  }
}

/** The output of all instances of a node, of those that ended a bounded number. */
export class LogStore {
  readonly #open = new Map<string, InstanceLogs>();
  /** Ended ones by tenant, oldest first. */
  readonly #ended: { readonly tenant: string; readonly id: string }[] = [];

  constructor(
    private readonly directory: string,
    readonly bounds: LogBounds = defaultLogBounds,
  ) {
    makePrivateDirectory(directory);
    const found = readdirSync(directory).flatMap((name) => {
      const [tenant, id] = name.split("."); // a tenant's key has no dot
      return tenant && id ? [{ tenant, id }] : [];
    });
    // Ids are ULIDs, so that they sort by time.
    this.#ended.push(...found.sort((a, b) => (a.id < b.id ? -1 : 1)));
  }

  /** The files of an instance that starts or was adopted. */
  open(tenant: string, id: string): InstanceLogs {
    const at = this.#ended.findIndex((one) => one.id === id);
    if (at >= 0) this.#ended.splice(at, 1);
    const logs = new InstanceLogs(this.#directoryOf(tenant, id));
    makePrivateDirectory(logs.directory);
    this.#open.set(id, logs);
    return logs;
  }

  /** The output of an instance that lives or ended not long ago. */
  find(id: string): InstanceLogs | undefined {
    const ended = this.#ended.find((one) => one.id === id);
    return this.#open.get(id) ?? (ended && new InstanceLogs(this.#directoryOf(ended.tenant, id)));
  }

  /** Its output is kept while it is among the last of its tenant. */
  ended(tenant: string, id: string): void {
    if (!this.#open.delete(id)) return;
    this.#ended.push({ tenant, id });
    this.prune();
  }

  /** Removes what is over the bounds; called once more after adoption, when it is known who lives. */
  prune(): void {
    const kept = new Map<string, number>();
    for (let i = this.#ended.length - 1; i >= 0; i--) {
      const { tenant, id } = this.#ended[i]!;
      const count = kept.get(tenant) ?? 0;
      const all = this.#ended.length - i;
      if (count < this.bounds.keepPerTenant && all <= this.bounds.keepInAll) {
        kept.set(tenant, count + 1);
        continue;
      }
      this.#ended.splice(i, 1);
      removeTree(this.#directoryOf(tenant, id));
    }
  }

  /** To be called a few times a second. */
  enforceBounds(): void {
    for (const logs of this.#open.values()) logs.enforceBound(this.bounds.fileBytes);
  }

  #directoryOf(tenant: string, id: string): string {
    return join(this.directory, `${tenant}.${id}`);
  }
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

function readRange(path: string, from: number, to: number): Buffer {
  if (to <= from) return Buffer.alloc(0);
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if (isMissing(error)) return Buffer.alloc(0);
    throw error;
  }
  try {
    const end = Math.min(to, fstatSync(fd).size);
    const buffer = Buffer.allocUnsafe(Math.max(0, end - from));
    let filled = 0;
    while (filled < buffer.length) {
      const n = readSync(fd, buffer, filled, Math.min(chunkBytes, buffer.length - filled), from + filled);
      if (n === 0) break;
      filled += n;
    }
    return buffer.subarray(0, filled);
  } finally {
    closeSync(fd);
  }
}
