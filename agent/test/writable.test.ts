/** `writable`: directories of a read-only release that an instance may write to, on each isolation level. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import {
  ExitReason,
  type Instance,
  InstanceState,
  Isolation,
  type TenantSpecSchema,
} from "@warren/proto/common";
import { linkTree } from "../src/mounts/tree.ts";
import { writeHint } from "../src/write-hint.ts";
import { type FakeScheduler, failure, fixtures, type TestAgent, TestSite } from "./support.ts";

const isRoot = process.getuid?.() === 0;
const app = readFileSync(join(fixtures, "files.ts"), "utf8");

let site: TestSite;
let scheduler: FakeScheduler;
let digest: string;

beforeAll(async () => {
  site = await TestSite.open();
  chmodSync(site.directory, 0o755); // other users must reach tenants' files
  scheduler = await site.scheduler();
  ({ digest } = await scheduler.release({
    "files.ts": app,
    ".next/server.js": "// built",
    ".next/cache/built.txt": "from the build",
  }));
});

afterAll(() => site[Symbol.asyncDispose]());

type Spec = Omit<MessageInitShape<typeof TenantSpecSchema>, "$typeName">;

function start(t: TestAgent, spec: Spec, args: string[] = []): Promise<Instance> {
  const ref = t.ref("app", { release: digest });
  return t.start(
    "files.ts",
    { source: { case: "release", value: digest }, command: ["bun", "files.ts", ...args], ...spec },
    ref,
  );
}

async function ask(
  instance: Instance,
  deed: string,
  path: string,
  text = "",
): Promise<{ ok: boolean; value?: string; code?: string }> {
  const url = `http://127.0.0.1:${instance.endpoint!.port}/${deed}?path=${encodeURIComponent(path)}`;
  return (await (await fetch(url, { method: "POST", body: text })).json()) as never;
}

describe.each([
  { isolation: Isolation.NONE, needsRoot: false },
  { isolation: Isolation.USER, needsRoot: true },
  { isolation: Isolation.NAMESPACE, needsRoot: true },
])("on isolation level $isolation", ({ isolation, needsRoot }) => {
  test.skipIf(needsRoot && !isRoot)(
    "a writable directory begins as the release has it, is the instance's own, and goes with it",
    async () => {
      const t = await site.agent(scheduler.url, { isolation: "auto" });
      const spec = { isolation, writable: [".next/cache", "uploads/new"] };
      const one = await start(t, spec);
      expect(one.exit).toBeUndefined();
      expect(await ask(one, "read", ".next/cache/built.txt")).toEqual({ ok: true, value: "from the build" });
      expect(await ask(one, "read", ".next/server.js")).toEqual({ ok: true, value: "// built" });
      for (const path of [".next/cache/built.txt", ".next/cache/a/b.txt", "uploads/new/c.txt"]) {
        expect(await ask(one, "write", path, "mine")).toEqual({ ok: true });
        expect(await ask(one, "read", path)).toEqual({ ok: true, value: "mine" });
      }
      // Another one at the same time has its own, and so has the next.
      const two = await start(t, spec);
      expect(await ask(two, "read", ".next/cache/built.txt")).toEqual({ ok: true, value: "from the build" });
      expect(await ask(two, "read", "uploads/new/c.txt")).toMatchObject({ ok: false, code: "ENOENT" });
      for (const { ref } of [one, two]) await t.stop(ref!.id);
      const root = t.options.runtimeDirectory;
      await waitUntil(
        () => ["homes", "releases.views"].every((name) => readdirSync(join(root, name)).length === 0),
        {
          deadlineMs: 5_000,
          what: "what the instances wrote is gone",
        },
      );
      // Nothing of it is in the release, which others share.
      const release = join(root, "releases", digest.slice("sha256:".length));
      expect(readdirSync(join(release, ".next/cache"))).toEqual(["built.txt"]);
      expect(readFileSync(join(release, ".next/cache/built.txt"), "utf8")).toBe("from the build");
    },
  );
});

test.skipIf(!isRoot)(
  "a start that writes into its release is told in one sentence what is writable",
  async () => {
    const t = await site.agent(scheduler.url, { isolation: "auto" });
    for (const isolation of [Isolation.NAMESPACE, Isolation.USER]) {
      for (const args of [
        ["write", "app.txt"],
        ["insert", "app.db"],
        ["write", "uploads/a.txt"],
      ]) {
        const { exit } = await start(t, { isolation }, args);
        expect(exit?.reason).toBe(ExitReason.CRASHED);
        expect(exit?.message).toContain("HOME and TMPDIR");
        expect(exit?.message).toEndWith(exit?.hint ?? "?");
        expect(exit?.message).toContain("`writable`");
        expect(exit?.message).toContain("`volumes`");
      }
    }
    // The same with what it asks for said.
    const served = await start(t, { isolation: Isolation.NAMESPACE, writable: ["uploads"] }, [
      "write",
      "uploads/a.txt",
    ]);
    expect(served.state).toBe(InstanceState.READY);
  },
);

test("what stands in the way of a writable directory is named", async () => {
  const t = await site.agent(scheduler.url);
  const { exit } = await start(t, { writable: ["files.ts/cache"] });
  expect(exit?.message).toBe("nothing can be mounted at files.ts/cache: files.ts is a file in its release");
  // The agent follows no link, wherever it leads: it would copy from there.
  const apps = site.path("apps");
  mkdirSync(apps);
  mkdirSync(site.path("secret/cache"), { recursive: true });
  symlinkSync(site.path("secret"), join(apps, "linked"));
  const linked = await t.start("files.ts", {
    source: { case: "directory", value: apps },
    writable: ["linked/cache"],
  });
  expect(linked.exit?.message).toBe(
    "nothing can be mounted at linked/cache: linked is a link in its release",
  );
  const error = await failure(start(t, { writable: ["../outside"] }));
  expect(error.code).toBe(Code.FailedPrecondition);
  expect(error.rawMessage).toContain(
    'spec.writable[0]: "../outside" must be a path relative to the app\'s directory',
  );
});

test("a stop during the preparation leaves nothing behind", async () => {
  const t = await site.agent(scheduler.url);
  const ref = t.ref("app", { release: digest });
  const spec = { key: "app", source: { case: "release" as const, value: digest }, writable: ["a", "b"] };
  const starting = t.rpc.startInstance({ epoch: 1n, instance: ref, spec });
  await t.stop(ref.id);
  await starting.catch(() => undefined);
  await waitUntil(
    () =>
      ["homes", "releases.views"].every(
        (name) => readdirSync(join(t.options.runtimeDirectory, name)).length === 0,
      ),
    { deadlineMs: 5_000, what: "nothing is left" },
  );
});

test("a view has what the release has, with other directories in the places that were named", async () => {
  const [from, own] = [site.path("view-from"), site.path("view-own")];
  mkdirSync(join(from, "a/b"), { recursive: true });
  mkdirSync(own);
  await Bun.write(join(from, "a/b/file"), "1");
  await Bun.write(join(from, "a/other"), "2");
  await linkTree(
    from,
    site.path("view-to"),
    new Map([
      ["a/b", own],
      ["x/y", own],
    ]),
  );
  const view = site.path("view-to");
  await Bun.write(join(view, "a/b/new"), "3");
  expect(readdirSync(own)).toEqual(["new"]);
  expect(existsSync(join(view, "x/y/new"))).toBe(true);
  expect(readdirSync(join(from, "a/b"))).toEqual(["file"]);
  expect(readFileSync(join(view, "a/other"), "utf8")).toBe("2");
});

test.each([
  ["EROFS: read-only file system, open 'app.db'", true],
  ["SQLiteError: unable to open database file", true],
  ['code: "SQLITE_READONLY"', true],
  ["EACCES: permission denied, mkdir 'uploads'", true],
  ["EACCES: permission denied, open '/r/abc/app.log'", true],
  ["PermissionError: [Errno 13] Permission denied: 'data.txt'", true],
  ["ENOENT: no such file or directory, mkdir '/r/abc/a/b'", true],
  // Of these none is about files that an app writes.
  ["EACCES: permission denied, open '/var/lib/secret'", false],
  ["listen EACCES: permission denied 0.0.0.0:80", false],
  ["ENOENT: no such file or directory, open 'missing.json'", false],
  ["TypeError: undefined is not a function", false],
])("%s: is the hint given? %p", (line, expected) => {
  expect(writeHint(["starting", line], "/r/abc") !== undefined).toBe(expected);
});
