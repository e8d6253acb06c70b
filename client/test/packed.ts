/** What the tests of packing share: apps made of files, and what stands in their tars. */

import { expect } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { extract } from "tar-stream";
import { PackError, type PackOptions, pack } from "../src/pack.ts";

export interface Found {
  readonly name: string;
  readonly type: string;
  readonly mode: number;
  readonly content: string;
  readonly target?: string;
}

/** A directory that is gone at the end of the test. */
export async function directory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "warren-pack-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export async function write(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
}

/** @param between called once, when the first bytes have come */
export async function entriesOf(
  root: string,
  options: PackOptions = {},
  between?: () => Promise<void>,
): Promise<Found[]> {
  const reader = extract();
  const found: Found[] = [];
  const reading = (async () => {
    for await (const entry of reader) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of entry) chunks.push(chunk as Uint8Array);
      const { name, type, mode, linkname } = entry.header;
      const content = Buffer.concat(chunks).toString("utf8");
      found.push({ name, type: type ?? "", mode: mode ?? 0, content, target: linkname ?? undefined });
    }
  })();
  let first = true;
  for await (const piece of pack(root, options)) {
    if (first) await between?.();
    first = false;
    reader.write(piece);
  }
  reader.end(undefined);
  await reading;
  return found;
}

export const namesOf = async (root: string, options?: PackOptions): Promise<string[]> =>
  (await entriesOf(root, options)).map(({ name }) => name);

export async function failure(
  root: string,
  options?: PackOptions,
  between?: () => Promise<void>,
): Promise<string> {
  const run = async () => {
    let first = true;
    for await (const _ of pack(root, options)) {
      if (first) await between?.();
      first = false;
    }
  };
  const error = await run().catch((e: unknown) => e);
  expect(error).toBeInstanceOf(PackError);
  return (error as PackError).message;
}
