/** The output of one instance: what it writes is taken in step by step, and read by whoever asks. */
import { join } from "node:path";
import { Bucket } from "@warren/common/bucket";
import { type Clock, pause } from "@warren/common/time";
import { appendOnly } from "../host/append-only.ts";
import type { OpenWatcher } from "../host/fanotify.ts";
import { Begun } from "./begun.ts";
import { chunkBytes, type LogBounds, type LogStats, lineBytes } from "./bounds.ts";
import { Copy } from "./copy.ts";
import { lastLines } from "./files.ts";
import { StreamIntake } from "./intake.ts";
import {
  encodeLines,
  encodeMark,
  type Line,
  overheadBytes,
  type RawLine,
  type StreamName,
  streams,
} from "./line.ts";
import { Allowance, type Found, isStarved } from "./rate.ts";
import { RawFile } from "./raw.ts";
import { CopyReader } from "./reader.ts";

/** What all instances of a store share. */
export interface LogContext {
  readonly bounds: LogBounds;
  readonly clock: Clock;
  readonly stats: LogStats;
  /** Whether raw files can be given back piece by piece; tests do without. */
  readonly canPunch: boolean;
  /** Asks before an instance opens its raw files anew, by /dev/stdout; absent where that cannot be had. */
  readonly opens?: OpenWatcher;
}

/** A batch of lines that is handed out holds at most these many, and at most {@link chunkBytes}. */
const batchLines = 256;
/** More than the largest backlog: 16 MiB. */
const stepsAtOnce = 512;
const followEveryMs = 50;
/** How often a raw file that is opened anew is taken in first: one that does nothing else must not keep the agent busy. */
const reopensAtOnce = 50;
const reopensPerSecond = 20;
/** At most 256 KiB of each stream are taken in meanwhile, since the process that opens it waits. */
const reopenSteps = 8;
/** When it is looked for who opened it to write from a place of its own, ms. */
const appendOnlyAfterMs = [1, 20, 200, 1_000];
const lastOutputLines = 20;
const lastOutputBytes = 1024;

/** What somebody wants of an instance's output. */
export interface ReadOutput {
  /** Lines of the past, at most. */
  readonly tail: number;
  /** ms since 1970: none that were read before. */
  readonly since?: number;
  readonly follow: boolean;
  /** Also what has no newline yet. */
  readonly partial?: boolean;
  /** Whether nothing more will be written. */
  readonly ended: () => boolean;
}

export class InstanceLogs {
  /** Opened at the first step: one that has ended long ago is only read. */
  #parts: { readonly copy: Copy; readonly intakes: readonly StreamIntake[] } | undefined;
  readonly #allowance: Allowance;
  #starved = false;
  /** Raw files that are watched for being opened anew. */
  readonly #watched: string[] = [];
  #ending = false;
  /** The last line of its output. */
  #remark: string | undefined;
  #over: boolean;

  /** @param over whether it ended and all its output is in the copy */
  constructor(
    readonly directory: string,
    private readonly context: LogContext,
    over = false,
  ) {
    this.#allowance = new Allowance(context.bounds, context.clock.monotonic());
    this.#over = over;
  }

  /** The raw file of a stream, to be opened for append; made by whoever spawns. */
  path(stream: StreamName): string {
    return rawPath(this.directory, stream);
  }

  /** Nothing is taken in any more: all that was ever written is, or another agent goes on. */
  get isOver(): boolean {
    return this.#over;
  }

  /**
   * To be called once it has been spawned: when it opens /dev/stdout, which is its raw file and which many programs empty
   * then, what stands in it is taken in first. Where that cannot be had, what was not taken in yet is lost.
   */
  watchOpens(): void {
    const { opens, clock } = this.context;
    if (!opens || this.#over) return;
    const bucket = new Bucket(reopensAtOnce, reopensPerSecond, () => clock.monotonic());
    for (const intake of this.#open().intakes) {
      // It must be open here before: we would wait for ourselves.
      if (!intake.isOpen) continue;
      const path = opens.watch(this.path(intake.stream), (pid) => {
        if (path !== undefined && bucket.take()) this.#reopened(intake, pid, path);
      });
      if (path !== undefined) this.#watched.push(path);
    }
  }

  /** @param pid of who opens it, and waits for this */
  #reopened(intake: StreamIntake, pid: number, path: string): void {
    for (let i = 0; i < reopenSteps && this.step() === "more"; i++);
    if (!this.#over) intake.reopened();
    for (const ms of appendOnlyAfterMs) setTimeout(() => appendOnly(pid, path), ms).unref();
  }

  /**
   * The instance is gone: what is left is taken in, and then the raw files go too.
   * @param remark how it ended, to be the last line of its output
   */
  end(remark?: string): void {
    this.#ending = true;
    this.#remark = remark;
  }

  /** Lets go of its files; the next agent finds them as they are. */
  close(): void {
    this.#over = true;
    this.#forgetOpens();
    for (const intake of this.#parts?.intakes ?? []) intake.close();
  }

  /** Takes in at most {@link chunkBytes} of each stream. */
  step(): Found {
    if (this.#over) return "nothing";
    const { bounds, clock } = this.context;
    const { intakes } = this.#open();
    const stirs = intakes.map((intake) => intake.stirs()).includes(true);
    if (!stirs && !this.#ending) return "nothing"; // most instances, most of the time
    const allowance = this.#allowance.available(clock.monotonic());
    this.#starved = isStarved(this.#starved, allowance, bounds);
    const how = { allowance, starved: this.#starved, last: this.#ending };
    const taken = intakes.map((intake) => intake.take(how));
    const seen = sum(taken, (one) => one.read + one.skipped);
    const unread = sum(taken, (one) => one.unread);
    // Short lines cost more to keep than their bytes.
    this.#allowance.take(sum(taken, (one) => one.read + one.lines.length * overheadBytes));
    // First the copy, then the raw files: an agent that dies in between finds both.
    if (seen > 0) this.#keep(taken.map((one) => one.lines));
    for (const intake of intakes) intake.giveBack();
    if (this.#ending && unread === 0) this.#finish();
    if (unread > 0 && (!this.#starved || this.#ending)) return "more";
    return seen >= chunkBytes / 2 ? "much" : seen + unread > 0 ? "some" : "nothing";
  }

  /** Takes in all that stands in the raw files now, as far as it may; others have their turns meanwhile. */
  async takeIn(signal?: AbortSignal): Promise<void> {
    for (let i = 0; i < stepsAtOnce && !signal?.aborted && this.step() === "more"; i++) {
      await new Promise(setImmediate);
    }
  }

  /** For the record of a failure: at most 20 lines of at most 1 KiB, with those that are not taken in yet. */
  lastOutput(): string[] {
    try {
      const unread = this.#over ? [] : this.#open().intakes.flatMap((intake) => intake.peek());
      const texts = [
        ...lastLines(this.directory, lastOutputLines).map(({ text }) => text),
        ...unread.slice(-lastOutputLines).map(({ bytes }) => Buffer.from(bytes).toString("utf8")),
      ];
      return texts.slice(-lastOutputLines).map(shortened);
    } catch {
      return []; // an end is told without the last lines rather than not at all
    }
  }

  /**
   * The last lines, and then the new ones until the instance has ended or the signal aborts. In batches, of which one at
   * a time is held: a reader that is slow slows only itself, and is told what was rotated away meanwhile. With `follow`, an
   * empty batch says once that all of the past was told.
   */
  async *read(
    options: ReadOutput,
    now: () => number,
    signal: AbortSignal,
  ): AsyncGenerator<Line[], void, undefined> {
    await this.takeIn(signal);
    const { reader, found } = await CopyReader.atTail(this.directory, options.tail, options.since);
    const begun = new Begun();
    let left = options.follow ? Number.POSITIVE_INFINITY : found;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      const ended = options.ended(); // asked before reading: what it wrote last is then in the file
      if (options.follow) await this.takeIn(signal);
      for (let lines = reader.next(now); lines.length > 0 && left > 0; lines = reader.next(now)) {
        for (let i = 0; i < lines.length && left > 0; i += batchLines) {
          const batch = lines.slice(i, i + Math.min(batchLines, left));
          left -= batch.length;
          yield batch;
          if (signal.aborted) return;
        }
      }
      const lines = options.partial && !this.#over ? begun.told(this.#begun(), now(), !options.follow) : [];
      if (lines.length > 0) yield lines;
      if (ended || !options.follow) return;
      if (isFirst) yield [];
      await pause(followEveryMs, signal);
    }
  }

  /** What each stream holds of a line that has no newline yet. */
  #begun(): readonly (readonly [StreamName, string])[] {
    return this.#open().intakes.map((intake) => [intake.stream, intake.begun]);
  }

  #open() {
    if (this.#parts) return this.#parts;
    const { bounds, stats, canPunch } = this.context;
    const copy = Copy.open(this.directory, bounds);
    const intakes = streams.map(
      (stream) =>
        new StreamIntake(stream, new RawFile(this.path(stream), canPunch), bounds, stats, copy.mark[stream]),
    );
    this.#parts = { copy, intakes };
    return this.#parts;
  }

  /** Into the copy, both streams as one batch; what cannot be written is counted, and said once it works again. */
  #keep(lines: readonly (readonly RawLine[])[]): void {
    const { copy, intakes } = this.#open();
    const { clock, stats } = this.context;
    const [stdout, stderr] = intakes as [StreamIntake, StreamIntake];
    const count = sum(lines, (some) => some.length);
    const mark = { lines: copy.mark.lines + count, stdout: stdout.mark, stderr: stderr.mark };
    if (count === 0 && encodeMark(mark) === encodeMark(copy.mark)) return;
    const at = clock.now();
    const error = copy.append(
      intakes.map(({ stream }, i) => encodeLines(stream, at, lines[i]!)),
      mark,
    );
    if (error) {
      for (const [i, intake] of intakes.entries()) intake.lose(lines[i]!);
      return;
    }
    stats.writtenLines += count;
    stats.cutLines += sum(lines, (some) => some.reduce((cut, line) => cut + (line.cut ? 1 : 0), 0));
  }

  #forgetOpens(): void {
    for (const path of this.#watched.splice(0)) this.context.opens?.forget(path);
  }

  #finish(): void {
    const { intakes } = this.#open();
    const last = intakes.map((intake) => intake.finish());
    if (this.#remark !== undefined) {
      const bytes = Buffer.from(`[warren] ${this.#remark}`).subarray(0, lineBytes);
      last[streams.indexOf("stderr")]!.push({ bytes, cut: false, ours: true });
    }
    this.#keep(last);
    for (const intake of intakes) intake.removeRaw();
    this.#over = true;
    this.#forgetOpens();
  }
}

export function rawPath(directory: string, stream: StreamName): string {
  return join(directory, `${stream}.log`);
}

/** At most so many bytes, without a torn character at the end. */
function shortened(text: string): string {
  return new TextDecoder().decode(Buffer.from(text).subarray(0, lastOutputBytes), { stream: true });
}

function sum<T>(list: readonly T[], of: (one: T) => number): number {
  return list.reduce((total, one) => total + of(one), 0);
}
