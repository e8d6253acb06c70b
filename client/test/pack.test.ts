import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { extract } from "tar-stream";
import { PackError, pack } from "../src/pack.ts";

let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "warren-pack-"));
});

afterAll(() => rm(root, { recursive: true, force: true }));

async function app(name: string, order: readonly string[]): Promise<string> {
  const directory = join(root, name);
  await mkdir(join(directory, "src"), { recursive: true });
  for (const file of order) await writeFile(join(directory, file), `content of ${file}`);
  return directory;
}

async function digest(directory: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of pack(directory)) hash.update(piece);
  return hash.digest("hex");
}

async function entries(
  directory: string,
): Promise<{ name: string; mode?: number; type?: string; size: number }[]> {
  const reader = extract();
  const found: { name: string; mode?: number; type?: string; size: number }[] = [];
  const reading = (async () => {
    for await (const entry of reader) {
      let size = 0;
      for await (const chunk of entry) size += (chunk as Uint8Array).byteLength;
      found.push({
        name: entry.header.name,
        mode: entry.header.mode,
        type: entry.header.type ?? undefined,
        size,
      });
    }
  })();
  for await (const piece of pack(directory)) reader.write(piece);
  reader.end(undefined);
  await reading;
  return found;
}

async function failure(directory: string, options?: Parameters<typeof pack>[1]): Promise<PackError> {
  const run = async () => {
    for await (const _ of pack(directory, options));
  };
  const error = await run().catch((e: unknown) => e);
  expect(error).toBeInstanceOf(PackError);
  return error as PackError;
}

describe("a canonical tar", () => {
  test("the same files give the same digest, whenever and in whatever order they were written", async () => {
    const one = await app("one", ["package.json", "src/a.ts", "b.ts"]);
    const two = await app("two", ["b.ts", "src/a.ts", "package.json"]);
    await utimes(join(two, "b.ts"), new Date(0), new Date(0));
    await chmod(join(two, "b.ts"), 0o600);
    expect(await digest(one)).toBe(await digest(two));
    await writeFile(join(two, "b.ts"), "other");
    expect(await digest(one)).not.toBe(await digest(two));
  });

  test("entries are sorted, executable bits are kept, litter and secrets are left out", async () => {
    const directory = await app("full", ["z.sh", "a.ts", ".env"]);
    await chmod(join(directory, "z.sh"), 0o700);
    await mkdir(join(directory, ".git"));
    await writeFile(join(directory, ".git", "HEAD"), "x");
    await symlink("../a.ts", join(directory, "src", "link"));
    const big = new Uint8Array(3 * 1024 * 1024).fill(7);
    await writeFile(join(directory, "src", "big.bin"), big);
    expect(await entries(directory)).toEqual([
      { name: "a.ts", mode: 0o644, type: "file", size: 15 },
      { name: "src/", mode: 0o755, type: "directory", size: 0 },
      { name: "src/big.bin", mode: 0o644, type: "file", size: big.byteLength },
      { name: "src/link", mode: 0o777, type: "symlink", size: 0 },
      { name: "z.sh", mode: 0o755, type: "file", size: 15 },
    ]);
  });
});

describe("what cannot be packed is named", () => {
  test("no such directory, no directory", async () => {
    expect((await failure(join(root, "nowhere"))).message).toContain("does not exist");
    const directory = await app("plain", ["file"]);
    expect((await failure(join(directory, "file"))).message).toContain("is not a directory");
  });

  test("a link that leads outside", async () => {
    const directory = await app("leaky", ["a.ts"]);
    await symlink("../../etc", join(directory, "src", "out"));
    expect((await failure(directory)).message).toContain("src/out is a link to ../../etc");
  });

  test("too many entries, too many bytes", async () => {
    const directory = await app("large", ["a", "b", "c"]);
    expect((await failure(directory, { maxEntries: 2 })).message).toContain("more than 2 files");
    expect((await failure(directory, { maxBytes: 20 })).message).toContain("over 20 bytes");
  });
});
