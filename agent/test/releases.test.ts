import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState } from "@warren/proto/common";
import { type Header, pack } from "tar-stream";
import { ReleaseCache } from "../src/releases.ts";
import { unpack } from "../src/unpack.ts";
import { type FakeScheduler, failure, fixtures, silent, type TestAgent, TestSite } from "./support.ts";

type Entry = Partial<Header> & { name: string; body?: string };

async function tarOf(...entries: Entry[]): Promise<Uint8Array> {
  const tar = pack();
  for (const { body, ...header } of entries) tar.entry(header as Header, body ?? "");
  tar.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of tar) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

const digestOf = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

describe("unpacking", () => {
  const directory = mkdtempSync(join(tmpdir(), "warren-unpack-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const bounds = { bytes: 10_000, entries: 20 };

  async function unpacked(...entries: Entry[]): Promise<string> {
    const at = mkdtempSync(join(directory, "x-"));
    writeFileSync(join(at, "t.tar"), await tarOf(...entries));
    const root = mkdtempSync(join(at, "root-"));
    await unpack(join(at, "t.tar"), root, bounds, AbortSignal.timeout(5_000));
    return root;
  }

  test("files, directories, modes and links inside", async () => {
    const root = await unpacked(
      { name: "./", type: "directory" },
      { name: "bin/run", body: "#!/bin/sh\n", mode: 0o755 },
      { name: "a/b.txt", body: "b", mode: 0o644 },
      { name: "a/link", type: "symlink", linkname: "../bin/run" },
      { name: "a/hard", type: "link", linkname: "a/b.txt" },
    );
    expect(readFileSync(join(root, "a/link"), "utf8")).toBe("#!/bin/sh\n");
    expect(readFileSync(join(root, "a/hard"), "utf8")).toBe("b");
    expect(statSync(join(root, "bin/run")).mode & 0o777).toBe(0o555);
    expect(statSync(join(root, "a/b.txt")).mode & 0o777).toBe(0o444);
  });

  const refused: [string, Entry[], string][] = [
    ["..", [{ name: "../evil", body: "x" }], "leads out of the release"],
    [".. inside", [{ name: "a/../../evil", body: "x" }], "leads out of the release"],
    ["an absolute path", [{ name: "/tmp/evil", body: "x" }], "is an absolute path"],
    ["an absolute link", [{ name: "l", type: "symlink", linkname: "/etc" }], "is an absolute path"],
    ["a link out", [{ name: "a/l", type: "symlink", linkname: "../../x" }], "leads out of the release"],
    [
      "a file through a link",
      [
        { name: "d", type: "symlink", linkname: "." },
        { name: "d/evil", body: "x" },
      ],
      "goes through the link d",
    ],
    [
      "links that lead out together",
      [
        { name: "a/b/up", type: "symlink", linkname: "../.." },
        { name: "out", type: "symlink", linkname: "a/b/up/.." },
      ],
      "leads out of the release",
    ],
    [
      "a hard link out",
      [{ name: "h", type: "link", linkname: "../../etc/passwd" }],
      "leads out of the release",
    ],
    [
      "a hard link to nothing",
      [{ name: "h", type: "link", linkname: "nothing" }],
      "which is no file before it",
    ],
    ["a device", [{ name: "dev", type: "character-device" }], "is a character-device"],
    ["a fifo", [{ name: "pipe", type: "fifo" }], "is a fifo"],
    [
      "a file twice",
      [
        { name: "a", body: "1" },
        { name: "a", body: "2" },
      ],
      "is there twice",
    ],
    [
      "a file over a link",
      [
        { name: "a", type: "symlink", linkname: "b" },
        { name: "a", body: "2" },
      ],
      "is there twice",
    ],
    ["too many bytes", [{ name: "a", body: "x".repeat(10_001) }], "more than 10000 bytes"],
    ["too many entries", Array.from({ length: 21 }, (_, i) => ({ name: `${i}` })), "more than 20 entries"],
  ];
  test.each(refused)("rule 6, rule 9: %s is refused", async (_what, entries, why) => {
    const error = await unpacked(...entries).catch((e: Error) => e);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toContain(why);
    expect(existsSync(join(directory, "evil"))).toBe(false);
    expect(existsSync("/tmp/evil")).toBe(false);
  });
});

describe("the cache", () => {
  const directory = mkdtempSync(join(tmpdir(), "warren-cache-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  async function cacheWith(
    count: number,
    more: { inUse?: Set<string>; cacheBytes?: number; cacheCount?: number; at?: string } = {},
  ) {
    const tars = new Map<string, Uint8Array>();
    for (let i = 0; i < count; i++) {
      const tar = await tarOf({ name: "index.ts", body: `// ${i} `.padEnd(1000) });
      tars.set(digestOf(tar), tar);
    }
    let downloads = 0;
    const at = more.at ?? mkdtempSync(join(directory, "c-"));
    const cache = new ReleaseCache({
      directory: at,
      log: silent,
      inUse: () => more.inUse ?? new Set(),
      bounds: {
        cacheBytes: more.cacheBytes ?? 1e6,
        cacheCount: more.cacheCount ?? 100,
        tarBytes: 20_000,
        fetchMs: 5_000,
      },
      async *download(digest) {
        downloads++;
        const tar = tars.get(digest);
        if (!tar) throw new Error("gone");
        yield tar.subarray(0, 700);
        await Bun.sleep(1); // lets a second caller come in between
        yield tar.subarray(700);
      },
    });
    return { cache, at, tars, digests: [...tars.keys()], downloads: () => downloads };
  }

  test("one fetch for many callers; later none, also after a restart", async () => {
    const { cache, at, digests, downloads } = await cacheWith(1);
    const paths = await Promise.all([cache.ensure(digests[0]!), cache.ensure(digests[0]!)]);
    expect(paths[0]).toBe(paths[1]!);
    await cache.ensure(digests[0]!);
    expect(downloads()).toBe(1);
    const again = await cacheWith(1, { at });
    expect(await again.cache.ensure(digests[0]!)).toBe(paths[0]!);
    expect(again.downloads()).toBe(0);
  });

  test("wrong bytes are refused and leave nothing; the next try fetches again", async () => {
    const { cache, at, tars, digests, downloads } = await cacheWith(1);
    const [digest] = digests;
    const right = tars.get(digest!)!;
    tars.set(digest!, await tarOf({ name: "index.ts", body: "forged" }));
    const error = await failure(cache.ensure(digest!));
    expect(error.code).toBe(Code.FailedPrecondition);
    expect(error.message).toContain("its bytes have the digest sha256:");
    expect(readdirSync(at)).toEqual([]);
    tars.set(digest!, right);
    await cache.ensure(digest!);
    expect(downloads()).toBe(2);
  });

  test("what cannot be fetched is UNAVAILABLE, what is too big is refused", async () => {
    const { cache } = await cacheWith(0);
    expect((await failure(cache.ensure(`sha256:${"0".repeat(64)}`))).code).toBe(Code.Unavailable);
    const big = await cacheWith(0);
    const tar = await tarOf({ name: "a", body: "x".repeat(30_000) });
    big.tars.set(digestOf(tar), tar);
    expect((await failure(big.cache.ensure(digestOf(tar)))).message).toContain("more than 20000 bytes");
  });

  test("rule 9: the least recently used go first, never one that runs", async () => {
    const inUse = new Set<string>();
    const { cache, digests } = await cacheWith(4, { inUse, cacheBytes: 2_500 });
    inUse.add(digests[0]!);
    for (const digest of digests.slice(0, 2)) await cache.ensure(digest);
    await cache.ensure(digests[2]!);
    expect(digests.map((digest) => cache.has(digest))).toEqual([true, false, true, false]);
    await cache.ensure(digests[3]!);
    expect(digests.map((digest) => cache.has(digest))).toEqual([true, false, false, true]);
  });

  test("rule 9: so many releases at most are kept, however small", async () => {
    const { cache, digests } = await cacheWith(3, { cacheCount: 2 });
    for (const digest of digests) await cache.ensure(digest);
    expect(digests.map((digest) => cache.has(digest))).toEqual([false, true, true]);
  });

  test("half of something, from an agent that died, is removed", async () => {
    const { at } = await cacheWith(0);
    writeFileSync(join(at, `${"a".repeat(64)}.tar`), "x");
    mkdtempSync(join(at, "new-"));
    await cacheWith(0, { at });
    expect(readdirSync(at)).toEqual([]);
  });
});

describe("through the agent", () => {
  let site: TestSite;
  let scheduler: FakeScheduler;
  let t: TestAgent;

  beforeAll(async () => {
    site = await TestSite.open();
    scheduler = await site.scheduler();
    t = await site.agent(scheduler.url);
  });
  afterAll(() => site[Symbol.asyncDispose]());

  async function deploy(): Promise<string> {
    const tar = await tarOf({ name: "index.ts", body: readFileSync(join(fixtures, "hello.ts"), "utf8") });
    scheduler.releases.set(digestOf(tar), tar);
    return digestOf(tar);
  }

  test("an instance runs from a release that is fetched ahead or at its start", async () => {
    const release = await deploy();
    expect(await t.rpc.fetchRelease({ epoch: t.epoch, digest: release })).toMatchObject({ cached: false });
    expect(await t.rpc.fetchRelease({ epoch: t.epoch, digest: release })).toMatchObject({ cached: true });
    const spec = { command: [], source: { case: "release" as const, value: release } };
    const instance = await t.start("", spec, t.ref("app", { release }));
    expect(instance.state).toBe(InstanceState.READY);
    expect(await (await fetch(`http://127.0.0.1:${instance.endpoint!.port}`)).text()).toBe("hello");
    expect(scheduler.downloads).toBe(1);
    await t.stop(instance.ref!.id);
  });

  test("one that cannot be fetched is UNAVAILABLE, and the id may be tried again", async () => {
    const release = `sha256:${"1".repeat(64)}`;
    const ref = t.ref("app", { release });
    const spec = { command: [], source: { case: "release" as const, value: release } };
    const error = await failure(t.start("", spec, ref));
    expect(error.code).toBe(Code.Unavailable);
    expect(error.message).toContain("no release sha256:111");
    expect(await t.list()).toEqual([]);
    expect((await failure(t.start("", spec, ref))).code).toBe(Code.Unavailable);
  });

  test("a stop while the release is fetched ends the start", async () => {
    const release = await deploy();
    const other = `sha256:${"2".repeat(64)}`;
    scheduler.releases.set(other, new Uint8Array(50_000_000)); // takes a while, and is wrong
    const ref = t.ref("app", { release: other });
    const starting = t.start("", { command: [], source: { case: "release", value: other } }, ref);
    await waitUntil(async () => (await t.list()).some((one) => one.ref?.id === ref.id), {
      deadlineMs: 5_000,
    });
    const stopped = await t.stop(ref.id);
    expect(stopped?.exit?.reason).toBe(ExitReason.KILLED);
    expect((await starting).state).toBe(InstanceState.EXITED);
    expect(release).toStartWith("sha256:");
  });

  test("a spec whose release is not the instance's is refused", async () => {
    const release = await deploy();
    const error = await failure(t.start("x", { source: { case: "release", value: release } }, t.ref("app")));
    expect(error.code).toBe(Code.InvalidArgument);
    expect(error.message).toContain("spec.release");
  });
});
