/** The output of a tenant's instances: each read at its node's agent, all merged into one stream. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { streaming } from "@warren/common/rpc/client";
import { Code, isRpcCode, rpcError } from "@warren/common/rpc/errors";
import { fromTimestamp, pause } from "@warren/common/time";
import { AgentService, type LogLine } from "@warren/proto/agent";
import type { InstanceRef } from "@warren/proto/common";
import type { Agents } from "../agents.ts";
import { Merge } from "./merge.ts";

/** What somebody wants to read. */
export interface Wanted {
  readonly tail: number;
  readonly since?: Timestamp;
  readonly follow: boolean;
  readonly partial: boolean;
}

/** One line, and whose. */
export interface InstanceLine extends LogLine {
  readonly instance: string;
}

/** Either some lines, or whose are read from now on. */
export interface Output {
  readonly lines?: readonly InstanceLine[];
  readonly instances?: readonly string[];
  /** With `instances`: how many more there are than can be read at once. */
  readonly leftOut?: number;
}

export interface SourcesOptions {
  readonly agents: Pick<Agents, "connection">;
  /** Where a node's agent is; undefined for a node that is not known. */
  readonly agentUrl: (node: string) => string | undefined;
  readonly monotonic: () => number;
}

/** Instances that are read at once; of more the newest. */
export const mostAtOnce = 100;
/** Lines that are held of new ones, before their instances wait. */
const mostHeld = 5_000;
const pastBytes = 32 * 1024 * 1024;
/** An agent hands lines on each 50 ms. */
const holdMs = 200;
/** An agent of an earlier version does not say when it has told its past. */
const silentMs = 1_000;
/** So often it is looked whether there are new instances, in ms. */
const lookMs = 100;
/** Lines of an instance that came while others were followed. */
const wholeTail = 10_000;

/**
 * Reads the output of instances until all have ended (and, with `more`, for as long as that says).
 * @param more instances that there are now; undefined ends it
 */
export async function* outputOf(
  refs: readonly InstanceRef[],
  wanted: Wanted,
  options: SourcesOptions,
  signal: AbortSignal,
  more?: () => readonly InstanceRef[] | undefined,
): AsyncGenerator<Output> {
  await using sources = new Sources(wanted, options, signal);
  sources.open(refs, wanted.tail);
  for (let shown = ""; !signal.aborted; ) {
    const found = more?.();
    if (found) sources.open(found, wholeTail);
    const { ids: instances, leftOut } = sources;
    const key = `${leftOut} ${instances.join()}`;
    if (key !== shown && instances.length > 0) {
      shown = key;
      yield { instances, leftOut };
    }
    const lines = sources.take();
    if (lines.length > 0) yield { lines };
    else if (sources.isOver && !found) return;
    else await sources.stirred(found || wanted.follow ? lookMs : undefined);
  }
}

class Sources implements AsyncDisposable {
  readonly #merge: Merge<InstanceLine>;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** All that were ever opened: one that has ended is not read again. */
  readonly #opened = new Set<string>();
  readonly #reading = new Set<Promise<void>>();
  /** Ids of those that are read. */
  #ids: string[] = [];
  #leftOut = 0;
  #error: unknown;
  #stir = Promise.withResolvers<void>();
  #room = Promise.withResolvers<void>();

  constructor(
    private readonly wanted: Wanted,
    private readonly options: SourcesOptions,
    signal: AbortSignal,
  ) {
    this.#merge = new Merge({ tail: wanted.tail, pastBytes, holdMs });
    this.#signal = AbortSignal.any([signal, this.#stop.signal]);
  }

  get ids(): readonly string[] {
    return this.#ids;
  }

  /** Of those that were to be opened last, how many found no place. */
  get leftOut(): number {
    return this.#leftOut;
  }

  get isOver(): boolean {
    return this.#reading.size === 0 && this.#merge.held === 0;
  }

  open(refs: readonly InstanceRef[], tail: number): void {
    const fresh = refs.filter(({ id }) => !this.#opened.has(id));
    if (fresh.length > 0) this.#error = undefined;
    fresh.sort((a, b) => Number(a.generation - b.generation));
    const places = Math.max(0, mostAtOnce - this.#ids.length);
    const taken = places === 0 ? [] : fresh.slice(-places);
    this.#leftOut = fresh.length - taken.length;
    for (const ref of taken) {
      this.#opened.add(ref.id);
      this.#ids.push(ref.id);
      this.#merge.add(ref.id);
      const reading = this.#read(ref, tail).finally(() => {
        this.#reading.delete(reading);
        this.#ids = this.#ids.filter((id) => id !== ref.id);
        this.#merge.end(ref.id);
        this.#stir.resolve();
      });
      this.#reading.add(reading);
    }
  }

  /** @throws ConnectError when none could be read */
  take(): InstanceLine[] {
    const { lines, leftOut } = this.#merge.take(this.options.monotonic());
    this.#room.resolve();
    this.#room = Promise.withResolvers();
    if (this.#error && this.#reading.size === 0 && lines.length === 0) throw this.#error;
    return leftOut > 0 && lines[0] ? [leftOutRemark(lines[0], leftOut), ...lines] : [...lines];
  }

  /** Until there may be something to take, at most for so long. */
  async stirred(mostMs: number | undefined): Promise<void> {
    const due = this.#merge.dueIn(this.options.monotonic());
    const ms = Math.min(due ?? Number.POSITIVE_INFINITY, mostMs ?? Number.POSITIVE_INFINITY);
    const ended = new AbortController();
    const signal = AbortSignal.any([this.#signal, ended.signal]);
    // Without an end of its own it is still woken: by a line, or the end of a source.
    await Promise.race([this.#stir.promise, pause(Math.min(ms, 60_000), signal)]);
    ended.abort();
    this.#stir = Promise.withResolvers();
  }

  async #read(ref: InstanceRef, tail: number): Promise<void> {
    const url = this.options.agentUrl(ref.node);
    try {
      if (url === undefined) {
        throw rpcError(
          Code.Unavailable,
          `node ${ref.node}, where instance ${ref.id} of ${ref.tenant} was, is not in the roster`,
        );
      }
      await this.#follow(ref, url, tail);
    } catch (error) {
      // Placed and not spawned yet, or so long ago that its output is gone.
      if (this.#signal.aborted || isRpcCode(error, Code.NotFound)) return;
      this.#error = error;
    }
  }

  async #follow(ref: InstanceRef, url: string, tail: number): Promise<void> {
    const { follow, since, partial } = this.wanted;
    const client = this.options.agents.connection(url).client(AgentService);
    const batches = streaming(
      (s) => client.streamLogs({ instance: ref.id, tail, follow, since, partial }, { signal: s }),
      this.#signal,
    );
    let silence: ReturnType<typeof setTimeout> | undefined;
    const caughtUp = () => {
      clearTimeout(silence);
      this.#merge.caughtUp(ref.id);
      this.#stir.resolve();
    };
    const isSilent = () => {
      clearTimeout(silence);
      if (follow && this.#merge.isPast) silence = setTimeout(caughtUp, silentMs);
    };
    try {
      isSilent();
      for await (const batch of batches) {
        isSilent();
        if (batch.lines.length > 0) this.#push(ref.id, batch.lines);
        if (batch.caughtUp) caughtUp();
        await this.#hasRoom();
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #push(instance: string, lines: readonly LogLine[]): void {
    const merged = lines.map((line) => ({
      source: instance,
      at: fromTimestamp(line.at, 0),
      bytes: line.text.length,
      line: { ...line, instance },
    }));
    this.#merge.push(merged, this.options.monotonic());
    this.#stir.resolve();
  }

  /** A reader that is slow slows the instances' streams, not this process. */
  async #hasRoom(): Promise<void> {
    while (!this.#merge.isGathering && this.#merge.held > mostHeld && !this.#signal.aborted) {
      await Promise.race([this.#room.promise, pause(lookMs, this.#signal)]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#reading);
  }
}

function leftOutRemark(first: InstanceLine, lines: number): InstanceLine {
  return {
    ...first,
    text: `[warren] ${lines} older lines are left out: together they are too large`,
    cut: false,
  };
}
