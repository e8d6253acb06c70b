/**
 * The file of `warren state dump`: a tar that says what it is first, then holds each release (its record, then its bytes),
 * then each tenant's spec, then which nodes are cordoned. Written and read in one pass, whatever its size.
 *
 *     warren-state.json  releases/<hex>.json  releases/<hex>.tar  tenants/<key>.json  nodes.json
 */
import { createReadStream, createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, pack } from "tar-stream";
import { z } from "zod";
import { exitCodes, UserError } from "../exit.ts";

/** Rises when an older version could not read what this one writes. */
const format = 1;

export const headSchema = z.object({
  format: z.number(),
  /** Of the Warren that wrote it. */
  version: z.string(),
  cluster: z.string(),
  /** ISO 8601. */
  at: z.string(),
  tenants: z.number(),
  releases: z.number(),
});
export type Head = z.infer<typeof headSchema>;

/** A record is a spec or a list of nodes: a message's bound, with room for how JSON is written. */
const mostJsonBytes = 16 * 1024 * 1024;

const headName = "warren-state.json";

export type Entry = { readonly name: string } & (
  | { readonly json: unknown }
  /** A release's bytes; `size` must be exact. */
  | { readonly size: number; readonly bytes: AsyncIterable<Uint8Array> }
);

/** Writes the file whole or not at all. */
export async function writeArchive(
  path: string,
  head: Omit<Head, "format">,
  entries: AsyncIterable<Entry>,
): Promise<void> {
  const unfinished = `${path}.${process.pid}.part`;
  const tar = pack();
  const written = pipeline(tar, createWriteStream(unfinished, { mode: 0o600, flags: "wx" }));
  const add = async () => {
    await addJson(tar, headName, { format, ...head });
    for await (const entry of entries) {
      if ("json" in entry) await addJson(tar, entry.name, entry.json);
      else await addBytes(tar, entry);
    }
    tar.finalize();
  };
  try {
    await Promise.all([
      written,
      add().catch((error: Error) => {
        tar.destroy(error);
        throw error;
      }),
    ]);
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}

type Tar = ReturnType<typeof pack>;

function addJson(tar: Tar, name: string, value: unknown): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
  return new Promise((done, failed) => {
    tar.entry({ name, mode: 0o600 }, bytes, (error) => (error ? failed(error) : done()));
  });
}

async function addBytes(tar: Tar, { name, size, bytes }: Extract<Entry, { size: number }>): Promise<void> {
  const ended = Promise.withResolvers<void>();
  const entry = tar.entry({ name, size, mode: 0o600 }, (error) =>
    error ? ended.reject(error) : ended.resolve(),
  ) as unknown as Writable;
  for await (const part of bytes) {
    if (entry.write(part)) continue;
    const drained = new Promise<void>((done) => void entry.once("drain", () => done()));
    await Promise.race([drained, ended.promise]); // a full disk ends it, and then nothing drains
  }
  entry.end();
  await ended.promise;
}

/** An entry as it is read: its bytes must be read, or are passed over when the next one is asked for. */
export interface ReadEntry {
  readonly name: string;
  readonly bytes: AsyncIterable<Uint8Array>;
  json(): Promise<unknown>;
}

/**
 * What the file is, and its entries in order.
 * @throws UserError when it is no dump, is cut off, or is of a later format
 */
export async function* readArchive(path: string): AsyncGenerator<ReadEntry, void, undefined> {
  const tar = extract();
  const source = createReadStream(path);
  source.on("error", (error) => tar.destroy(error));
  source.pipe(tar);
  let isFirst = true;
  try {
    for await (const entry of tar) {
      const read: ReadEntry = {
        name: entry.header.name,
        bytes: entry as AsyncIterable<Uint8Array>,
        json: async () => {
          if ((entry.header.size ?? 0) > mostJsonBytes) throw new Error(`${entry.header.name} is too large`);
          return JSON.parse(Buffer.concat(await Array.fromAsync(read.bytes)).toString("utf8"));
        },
      };
      if (isFirst) checkHead(path, read.name, await read.json());
      else yield read;
      isFirst = false;
      entry.resume(); // what nobody read
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${path} cannot be read: ${(error as Error).message}`, exitCodes.failed);
  } finally {
    source.destroy();
  }
  if (isFirst) throw new UserError(`${path} is empty: it is no dump of 'warren state dump'`);
}

function checkHead(path: string, name: string, json: unknown): void {
  const head = headSchema.safeParse(json);
  if (name !== headName || !head.success) throw new UserError(`${path} is no dump of 'warren state dump'`);
  if (head.data.format > format) {
    throw new UserError(
      `${path} was written by Warren ${head.data.version} in format ${head.data.format}; this version reads up to ${format}: restore it with that version or a later one`,
    );
  }
}
