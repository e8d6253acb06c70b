/** Volumes: files that outlive their instances, on each isolation level; measured, limited, copied and brought back. */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { Code } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import type { RestoreVolumeRequestSchema } from "@warren/proto/agent";
import {
  ExitReason,
  type Instance,
  InstanceState,
  Isolation,
  type StorageReport,
  type TenantSpecSchema,
} from "@warren/proto/common";
import { mountAll } from "../src/mounts/mounts.ts";
import { type FakeScheduler, failure, fixtures, type TestAgent, TestSite } from "./support.ts";

const isRoot = process.getuid?.() === 0;

let site: TestSite;
let scheduler: FakeScheduler;
let digest: string;

beforeAll(async () => {
  site = await TestSite.open();
  chmodSync(site.directory, 0o755); // other users must reach tenants' files
  scheduler = await site.scheduler();
  ({ digest } = await scheduler.release({ "files.ts": readFileSync(join(fixtures, "files.ts"), "utf8") }));
});

afterAll(() => site[Symbol.asyncDispose]());

type Spec = Omit<MessageInitShape<typeof TenantSpecSchema>, "$typeName">;
interface Mount {
  readonly id: string;
  readonly mustExist?: boolean;
}

async function start(t: TestAgent, { id, mustExist = false }: Mount, spec: Spec = {}): Promise<Instance> {
  const ref = t.ref("app", { release: digest });
  const { instance } = await t.rpc.startInstance({
    epoch: t.epoch,
    instance: ref,
    spec: {
      key: "app",
      source: { case: "release", value: digest },
      command: ["bun", "files.ts"],
      volumes: [{ name: "data", path: "data" }],
      ...spec,
    },
    volumes: [{ name: "data", id, mustExist }],
  });
  return instance!;
}

async function ask(
  instance: Instance,
  deed: string,
  path: string,
  text = "",
): Promise<{ ok: boolean; value?: unknown; code?: string }> {
  const url = `http://127.0.0.1:${instance.endpoint!.port}/${deed}?path=${encodeURIComponent(path)}`;
  return (await (
    await fetch(url, { method: "POST", body: text, headers: { connection: "close" } })
  ).json()) as never;
}

const copyOf = (t: TestAgent, id: string) => join(t.options.runtimeDirectory, "volumes", `app.data.${id}`);

function storagesOf(id: string): StorageReport[] {
  return scheduler.records.flatMap(({ what }) =>
    what.case === "storage" && what.value.volume === id ? [what.value] : [],
  );
}

async function backup(t: TestAgent, volume: string, unlessFingerprint = "") {
  const chunks: Uint8Array[] = [];
  let header: { fingerprint: string; unchanged: boolean } | undefined;
  let isWhole = false;
  for await (const { part } of t.rpc.backupVolume({ epoch: 1n, volume, unlessFingerprint })) {
    if (part.case === "header") header = part.value;
    else if (part.case === "chunk") chunks.push(part.value);
    else isWhole = true;
  }
  return { ...header!, chunks, isWhole };
}

async function restore(t: TestAgent, volume: string, chunks: readonly Uint8Array[], isWhole = true) {
  return await t.rpc.restoreVolume(
    (async function* (): AsyncGenerator<MessageInitShape<typeof RestoreVolumeRequestSchema>> {
      yield { part: { case: "header" as const, value: { epoch: 1n, volume, tenant: "app", name: "data" } } };
      for (const value of chunks) yield { part: { case: "chunk" as const, value } };
      if (isWhole) yield { part: { case: "end" as const, value: {} } };
    })(),
  );
}

describe.each([
  { isolation: Isolation.NONE, needsRoot: false },
  { isolation: Isolation.USER, needsRoot: true },
  { isolation: Isolation.NAMESPACE, needsRoot: true },
])("on isolation level $isolation", ({ isolation, needsRoot }) => {
  test.skipIf(needsRoot && !isRoot)(
    "a volume outlives its instances and the agent, whatever uid they have",
    async () => {
      const t = await site.agent(scheduler.url, { isolation: "auto" });
      const id = ulid();
      const one = await start(t, { id }, { isolation });
      expect(one.exit).toBeUndefined();
      expect(await ask(one, "write", "data/sub/a.txt", "kept")).toEqual({ ok: true });
      expect(await ask(one, "insert", "data/app.db")).toEqual({ ok: true, value: 1 });
      await t.stop(one.ref!.id);
      const two = await start(t, { id, mustExist: true }, { isolation });
      expect(await ask(two, "read", "data/sub/a.txt")).toEqual({ ok: true, value: "kept" });
      expect(await ask(two, "write", "data/sub/a.txt", "changed")).toEqual({ ok: true });
      expect(await ask(two, "insert", "data/app.db")).toEqual({ ok: true, value: 2 });
      await t.agent.stop();
      const next = await site.agent(scheduler.url, { ...t.options, isolation: "auto" });
      const three = await start(next, { id, mustExist: true }, { isolation });
      expect(await ask(three, "read", "data/sub/a.txt")).toEqual({ ok: true, value: "changed" });
      expect(await ask(three, "insert", "data/app.db")).toEqual({ ok: true, value: 3 });
    },
  );

  test.skipIf(needsRoot && !isRoot)(
    "a live database in its write-ahead log comes out of a backup whole, and is brought back elsewhere",
    async () => {
      const t = await site.agent(scheduler.url, { isolation: "auto" });
      const id = ulid();
      const live = await start(t, { id }, { isolation });
      for (let n = 1; n <= 3; n++) await ask(live, "insert", "data/app.db");
      expect(lstatSync(join(copyOf(t, id), "data/app.db-wal")).size).toBeGreaterThan(0);
      await ask(live, "write", "data/ünï/a file.txt", "text");
      symlinkSync("/nowhere/at/all", join(copyOf(t, id), "data/link"));
      const made = await backup(t, id);
      expect(made).toMatchObject({ unchanged: false, isWhole: true });
      expect(await ask(live, "insert", "data/app.db")).toEqual({ ok: true, value: 4 }); // it goes on undisturbed
      expect(readdirSync(copyOf(t, id)).sort()).toEqual(["data", "volume.json"]);

      const other = await site.agent(scheduler.url, { isolation: "auto" });
      const copy = ulid();
      await restore(other, copy, made.chunks);
      const data = join(copyOf(other, copy), "data");
      expect(readdirSync(data).sort()).toEqual(["app.db", "link", "ünï"]);
      const db = new Database(join(data, "app.db"), { readonly: true });
      expect(db.query("PRAGMA integrity_check").get()).toEqual({ integrity_check: "ok" });
      db.close();
      const back = await start(other, { id: copy, mustExist: true }, { isolation });
      expect(await ask(back, "insert", "data/app.db")).toEqual({ ok: true, value: 4 });
      expect(await ask(back, "read", "data/ünï/a file.txt")).toEqual({ ok: true, value: "text" });
    },
  );

  test.skipIf(needsRoot && !isRoot)(
    "an idle volume is backed up too; one that has not changed is not",
    async () => {
      const t = await site.agent(scheduler.url, { isolation: "auto" });
      const id = ulid();
      const one = await start(t, { id }, { isolation });
      await ask(one, "write", "data/a.txt", "1");
      await t.stop(one.ref!.id);
      const first = await backup(t, id);
      expect(first).toMatchObject({ unchanged: false, isWhole: true });
      expect(await backup(t, id, first.fingerprint)).toMatchObject({
        unchanged: true,
        chunks: [],
        isWhole: false,
      });
      const two = await start(t, { id, mustExist: true }, { isolation });
      await ask(two, "write", "data/a.txt", "2");
      expect(await backup(t, id, first.fingerprint)).toMatchObject({ unchanged: false, isWhole: true });
    },
  );
});

test.skipIf(!isRoot)("a volume may be mounted at an absolute path, in a mount namespace", async () => {
  const t = await site.agent(scheduler.url, { isolation: "auto" });
  const id = ulid();
  const volumes = [{ name: "data", path: "/data/app" }];
  const one = await start(t, { id }, { volumes });
  expect(await ask(one, "write", "/data/app/a.txt", "kept")).toEqual({ ok: true });
  await t.stop(one.ref!.id);
  expect(readFileSync(join(copyOf(t, id), "data/a.txt"), "utf8")).toBe("kept");
  const plan = {
    level: Isolation.NAMESPACE,
    directory: "/srv/releases/r",
    isRelease: true,
    gid: undefined,
    view: "",
    others: ["/home/x"],
  };
  for (const path of ["/srv", "/srv/releases/r/data", "/home"]) {
    const mounting = mountAll({ ...plan, mounts: [{ path, source: "/volume" }] });
    expect((await mounting.catch((error: Error) => error)) as Error).toHaveProperty("name", "SpawnError");
  }
});

test("where a volume is missing nothing is started, rather than with an empty one", async () => {
  const t = await site.agent(scheduler.url);
  const { exit } = await start(t, { id: ulid(), mustExist: true });
  expect(exit?.reason).toBe(ExitReason.CRASHED);
  expect(exit?.message).toContain("warren volumes restore app data");
});

test("a volume is one instance's at a time", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  const one = await start(t, { id });
  const error = await failure(start(t, { id, mustExist: true }));
  expect(error.code).toBe(Code.Aborted);
  expect(error.rawMessage).toContain(`still in use (${one.ref!.id})`);
  expect((await failure(t.rpc.removeVolume({ epoch: 1n, volume: id }))).code).toBe(Code.FailedPrecondition);
  await t.stop(one.ref!.id);
  expect((await start(t, { id, mustExist: true })).state).toBe(InstanceState.READY);
});

test("more than its size ends an instance, and none is started until it is raised", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  const volumes = [{ name: "data", path: "data", sizeBytes: 65_536n }];
  const one = await start(t, { id }, { volumes });
  await ask(one, "write", "data/big", "x".repeat(200_000));
  const { exit } = await scheduler.untilExited(one.ref!.id);
  expect(exit?.reason).toBe(ExitReason.LIMIT);
  expect(exit?.message).toMatch(/its volume data holds \d+ bytes, and its size is 65536/);
  const two = await start(t, { id, mustExist: true }, { volumes });
  expect(two.exit?.message).toContain("raise its size");
  const raised = [{ name: "data", path: "data", sizeBytes: 1_000_000n }];
  expect((await start(t, { id, mustExist: true }, { volumes: raised })).state).toBe(InstanceState.READY);
});

test("what a volume holds is told with byte-seconds that only grow, over agents; removed, it is told once more", async () => {
  const t = await site.agent(scheduler.url, { volumeIntervalMs: 50 });
  const id = ulid();
  const one = await start(t, { id });
  await ask(one, "write", "data/a", "x".repeat(1_000_000));
  const grown = await waitUntil(() => storagesOf(id).find(({ byteSeconds }) => byteSeconds > 100_000n), {
    deadlineMs: 10_000,
    what: "its byte-seconds grow",
  });
  expect(grown).toMatchObject({ tenant: "app", name: "data", node: "n1" });
  expect(Number(grown.usedBytes)).toBeGreaterThanOrEqual(1_000_000);
  await t.agent.stop();
  const next = await site.agent(scheduler.url, { ...t.options, volumeIntervalMs: 50 });
  const before = storagesOf(id).length;
  await waitUntil(() => storagesOf(id).length > before + 2, {
    deadlineMs: 10_000,
    what: "the next agent goes on",
  });
  const counters = storagesOf(id).map(({ byteSeconds }) => byteSeconds);
  expect(counters).toEqual(counters.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)));
  await next.rpc.removeVolume({ epoch: 1n, volume: id });
  await next.rpc.removeVolume({ epoch: 1n, volume: id }); // again: it is gone
  expect(existsSync(copyOf(next, id))).toBe(false);
});

test("half a backup is not brought back, and nothing of it is left", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  const one = await start(t, { id });
  await ask(one, "write", "data/a", "x".repeat(1_000));
  const made = await backup(t, id);
  const copy = ulid();
  expect((await failure(restore(t, copy, made.chunks, false))).code).toBe(Code.DataLoss);
  expect(existsSync(copyOf(t, copy))).toBe(false);
  await restore(t, copy, made.chunks);
  expect(readdirSync(join(copyOf(t, copy), "data"))).toEqual(["a"]);
  // Again: what is there is left as it is.
  writeFileSync(join(copyOf(t, copy), "data/new"), "");
  await restore(t, copy, made.chunks);
  expect(readdirSync(join(copyOf(t, copy), "data")).sort()).toEqual(["a", "new"]);
});

test("an instance that starts does not wait for the backup of its idle volume", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  const one = await start(t, { id });
  await t.stop(one.ref!.id);
  // So much that the copy is still under way: it does not compress, and the reader does not read on.
  const data = join(copyOf(t, id), "data");
  for (let n = 0; n < 64; n++)
    writeFileSync(join(data, `random-${n}`), crypto.getRandomValues(new Uint8Array(65_536)));
  mkdirSync(join(data, "deep"));
  for (let n = 0; n < 100; n++)
    writeFileSync(join(data, "deep", `r-${n}`), Buffer.alloc(1024 * 1024, crypto.randomUUID()));
  const stream = t.rpc.backupVolume({ epoch: 1n, volume: id })[Symbol.asyncIterator]();
  await stream.next(); // its header
  await stream.next(); // its first chunk
  const two = await start(t, { id, mustExist: true });
  expect(two.state).toBe(InstanceState.READY);
  const rest = async () => {
    for (let next = await stream.next(); !next.done; next = await stream.next());
  };
  expect((await failure(rest())).code).toBe(Code.Aborted);
  rmSync(join(data, "deep"), { recursive: true });
});

test.skipIf(!isRoot)(
  "files written at one isolation level can be read and written at any other",
  async () => {
    const t = await site.agent(scheduler.url, { isolation: "auto" });
    const id = ulid();
    const levels = [Isolation.USER, Isolation.NONE, Isolation.NAMESPACE, Isolation.NONE, Isolation.USER];
    for (const [n, isolation] of levels.entries()) {
      const instance = await start(t, { id, mustExist: n > 0 }, { isolation });
      expect(await ask(instance, "insert", "data/app.db")).toEqual({ ok: true, value: n + 1 });
      expect(await ask(instance, "write", `data/of-${n}/file`, "x")).toEqual({ ok: true });
      expect(await ask(instance, "write", "data/of-0/file", "again")).toEqual({ ok: true });
      await t.stop(instance.ref!.id);
    }
  },
);

test("what an agent that died left half made, half restored or half removed is neither a volume nor in the way", async () => {
  const t = await site.agent(scheduler.url);
  const [made, half] = [ulid(), ulid()];
  await t.stop((await start(t, { id: made })).ref!.id);
  await t.agent.stop();
  rmSync(join(copyOf(t, made), "volume.json")); // it died before it could write this
  const left = join(t.options.runtimeDirectory, "volumes", `.half.${half}`);
  mkdirSync(join(left, "data"), { recursive: true });
  const next = await site.agent(scheduler.url, t.options);
  expect(existsSync(left)).toBe(false);
  expect((await start(next, { id: made })).state).toBe(InstanceState.READY);
});

test("a volume is closed to all others while no instance has it", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  const mode = () => lstatSync(copyOf(t, id)).mode & 0o777;
  const one = await start(t, { id });
  expect(mode()).toBe(0o711);
  await t.stop(one.ref!.id);
  expect(mode()).toBe(0o700);
  await backup(t, id);
  expect(mode()).toBe(0o700);
});

test("files whose holes would fill a disk are not backed up, and it is said why", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  await start(t, { id });
  const path = join(copyOf(t, id), "data/holes");
  writeFileSync(path, "");
  truncateSync(path, 10 * 1024 * 1024);
  const read = async () => {
    for await (const _ of t.rpc.backupVolume({ epoch: 1n, volume: id, maxBytes: 1_000_000n }));
  };
  expect((await failure(read())).rawMessage).toContain(
    "more than 1000000 bytes long together, holes in them included",
  );
});

test("a stop in the middle of a start gives the volume back, wherever it comes", async () => {
  const t = await site.agent(scheduler.url);
  const id = ulid();
  await t.stop((await start(t, { id })).ref!.id);
  for (let afterMs = 0; afterMs < 40; afterMs += 4) {
    const ref = t.ref("app", { release: digest });
    const starting = t.rpc.startInstance({
      epoch: t.epoch,
      instance: ref,
      spec: {
        key: "app",
        source: { case: "release", value: digest },
        command: ["bun", "files.ts"],
        volumes: [{ name: "data", path: "data" }],
      },
      volumes: [{ name: "data", id, mustExist: true }],
    });
    await Bun.sleep(afterMs); // not to wait for anything: each time the stop meets it elsewhere
    await t.stop(ref.id, ExitReason.KILLED, 0);
    await starting.catch(() => undefined);
  }
  expect((await start(t, { id, mustExist: true })).state).toBe(InstanceState.READY);
});
