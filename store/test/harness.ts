/** What the tests of this room share: both back ends behind one face, children, conditions with deadlines. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seeded as mulberry } from "@warren/common/testing/seeded";
import {
  type JournalReader,
  type LeaseTimings,
  openJournalReader,
  openStore,
  type Store,
} from "@warren/store";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import type { JournalRecord, StoredRecord } from "../src/store.ts";

export const SHORT_LEASE: Partial<LeaseTimings> = {
  renewEveryMs: 100,
  holdMs: 700,
  takeoverMs: 1100,
  pollEveryMs: 20,
};

/** Where one back end's data lies, as a child process is told it. */
export interface Place {
  readonly url?: string;
  readonly directory: string;
  readonly cell: string;
}

/** One fresh back end. */
export interface Backend extends AsyncDisposable {
  readonly place: Place;
  readonly server: NatsServer | undefined;
  open(): Promise<Store>;
  /** A store of another process, as far as that is possible in one: on NATS another connection without the directory's lock. */
  openPeer(store: Store): Promise<Store>;
  openReader(): Promise<JournalReader & AsyncDisposable>;
}

export type Kind = "embedded" | "nats";
export const KINDS: readonly Kind[] = ["embedded", "nats"];

export function temporaryDirectory(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "warren-store-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export async function startBackend(kind: Kind): Promise<Backend> {
  const temporary = temporaryDirectory();
  const server = kind === "nats" ? await startNatsServer() : undefined;
  const place: Place = { url: server?.url, directory: join(temporary.path, "state"), cell: "test" };
  return {
    place,
    server,
    open: () => openStore({ ...place, lease: SHORT_LEASE }),
    openPeer: async (store) =>
      place.url === undefined
        ? store
        : openStore({ ...place, directory: join(temporary.path, crypto.randomUUID()), lease: SHORT_LEASE }),
    openReader: () => openJournalReader(place),
    [Symbol.asyncDispose]: async () => {
      await server?.[Symbol.asyncDispose]();
      temporary[Symbol.dispose]();
    },
  };
}

/** Waits until the condition holds; fails with its last error or value after the deadline. */
export async function eventually<T>(condition: () => T | Promise<T>, deadlineMs = 10_000): Promise<T> {
  const end = performance.now() + deadlineMs;
  let last: unknown;
  while (performance.now() < end) {
    try {
      const value = await condition();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    await Bun.sleep(10);
  }
  throw new Error(`not so within ${deadlineMs} ms`, { cause: last });
}

export function record(id: string | number, more: Partial<JournalRecord> = {}): JournalRecord {
  return {
    id: typeof id === "number" ? `agent-1:1:${id}` : id,
    subject: "warren.events.shop.transition",
    headers: { "ce-type": "warren.transition", "ce-id": String(id) },
    data: new TextEncoder().encode(`data of ${id}`),
    ...more,
  };
}

export function records(from: number, to: number): JournalRecord[] {
  return Array.from({ length: to - from }, (_, index) => record(from + index));
}

/** Reads until `count` records have come, or nothing more within the deadline. */
export async function readSome(
  reader: JournalReader,
  count: number,
  options: {
    after?: bigint | "end";
    durable?: string;
    subjectPrefix?: string;
    batch?: number;
    ack?: boolean;
  } = {},
  deadlineMs = 10_000,
): Promise<StoredRecord[]> {
  const found: StoredRecord[] = [];
  const { ack, ...rest } = options;
  for await (const batch of reader.read({ ...rest, signal: AbortSignal.timeout(deadlineMs) })) {
    found.push(...batch.records);
    if (ack) await batch.ack();
    if (found.length >= count) break;
  }
  return found;
}

/** Everything in the journal: appends a mark and reads up to it. */
export async function readAll(store: Store, subjectPrefix?: string): Promise<StoredRecord[]> {
  const mark = `mark:${crypto.randomUUID()}`;
  await store.journal.append([record(mark, { subject: `${subjectPrefix ?? "warren.events.shop"}.mark` })]);
  const found: StoredRecord[] = [];
  for await (const batch of store.journal.read({ subjectPrefix, signal: AbortSignal.timeout(20_000) })) {
    found.push(...batch.records);
    if (found.at(-1)?.id === mark) return found.slice(0, -1).filter(({ id }) => !id.startsWith("mark:"));
  }
  throw new Error("the mark did not come");
}

export function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

export function bytes(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

export async function* chunks(...parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

export async function collect(parts: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const part of parts) all.push(part);
  return new Uint8Array(Buffer.concat(all));
}

/** A child process of this test that speaks in lines. */
export interface Child extends AsyncDisposable {
  readonly pid: number;
  readonly lines: string[];
  /** What it wrote to stderr, for messages of failing tests. */
  readonly errors: () => string;
  line(matching: RegExp, deadlineMs?: number): Promise<string>;
  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
  /** Ends it as a crash does, and takes in the rest of its lines. */
  kill9(): Promise<void>;
}

export function startChild(script: string, options: object): Child {
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, "children", script), JSON.stringify(options)],
    {
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const atExit = () => child.kill("SIGKILL");
  process.on("exit", atExit);
  const lines: string[] = [];
  let errors = "";
  const reading = Promise.all([
    eachLine(child.stdout, (line) => lines.push(line)),
    eachLine(child.stderr, (line) => {
      errors += `${line}\n`;
    }),
  ]);
  const end = async () => {
    child.kill("SIGKILL");
    await child.exited;
    await reading;
    process.off("exit", atExit);
  };
  return {
    pid: child.pid,
    lines,
    errors: () => errors,
    line: async (matching, deadlineMs = 10_000) => {
      try {
        return await eventually(() => lines.find((line) => matching.test(line)) ?? "", deadlineMs);
      } catch (cause) {
        throw new Error(
          `${script} did not say ${matching}; it said ${JSON.stringify(lines.slice(-5))}\n${errors}`,
          { cause },
        );
      }
    },
    signal: (name) => child.kill(name),
    kill9: end,
    [Symbol.asyncDispose]: end,
  };
}

async function eachLine(stream: ReadableStream<Uint8Array>, take: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) take(part);
  }
}

/** Random numbers that come again from the same seed; the seed is printed, and WARREN_SEED sets it. */
export function seeded(name: string): { int(below: number): number; pick<T>(from: readonly T[]): T } {
  const seed = Number(process.env.WARREN_SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`${name}: WARREN_SEED=${seed}`);
  const next = mulberry(seed);
  const int = (below: number) => Math.floor(next() * below);
  return { int, pick: (from) => from[int(from.length)]! };
}
