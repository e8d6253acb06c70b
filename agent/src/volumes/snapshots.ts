/** Backups of volumes: out as a compressed tar, made by a process of the tenant's own user; and in again. */
import { chmodSync, chownSync, createWriteStream, lstatSync, mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdCompress, createZstdDecompress } from "node:zlib";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { rpcLimits } from "@warren/common/rpc/limits";
import { toTimestamp } from "@warren/common/time";
import type {
  BackupVolumeRequest,
  BackupVolumeResponseSchema,
  RestoreVolumeHeader,
  RestoreVolumeRequest,
} from "@warren/proto/agent";
import { messageOf, writeWhole } from "../files.ts";
import type { Mechanism } from "../mechanism.ts";
import { type Identity, uidOf } from "../sandbox.ts";
import { unpack } from "../unpack.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { handOver } from "./owner.ts";
import program from "./snapshot.script.js" with { type: "text" };

/** A backup may hold so much; a volume's own size is what bounds it. */
const mostBytes = 1024 ** 4;
const mostEntries = 1_000_000;
/** Backups and restores at once on this node: each reads or writes all of a volume. */
const mostAtOnce = 2;

export class Snapshots {
  readonly #m: Mechanism;
  readonly #program: string;
  #isPlaced = false;
  #running = 0;

  constructor(m: Mechanism, binDirectory: string) {
    this.#m = m;
    this.#program = join(binDirectory, "snapshot", "snapshot.js");
  }

  /** At the first backup: an agent starts on a full disk, too. In a directory that tenants' users may read, as Bun does. */
  #place(): void {
    if (this.#isPlaced) return;
    const directory = dirname(this.#program);
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, 0o755);
    writeWhole(this.#program, program);
    chmodSync(this.#program, 0o644);
    this.#isPlaced = true;
  }

  /**
   * The volume as it is now.
   * @throws ConnectError FAILED_PRECONDITION when it is not here, ABORTED when an instance starts that needs it,
   * RESOURCE_EXHAUSTED, UNAVAILABLE
   */
  async *backup(
    { volume: id, unlessFingerprint, maxBytes }: BackupVolumeRequest,
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof BackupVolumeResponseSchema>> {
    const data = this.#m.volumes.dataOf(id);
    const asOf = toTimestamp(this.#m.clock.now());
    const fingerprint = await fingerprintOf(data);
    const unchanged = fingerprint === unlessFingerprint;
    yield { part: { case: "header", value: { asOf, fingerprint, unchanged } } };
    if (unchanged) return;
    this.#enter();
    try {
      const work = await this.#begin(id, data);
      try {
        const most = Number(maxBytes) || mostBytes;
        yield* this.#copy(id, data, work, most, AbortSignal.any([signal, work.signal]));
      } finally {
        await work.end();
      }
    } finally {
      this.#running--;
    }
    yield { part: { case: "end", value: {} } };
  }

  /** @throws ConnectError INVALID_ARGUMENT, DATA_LOSS, RESOURCE_EXHAUSTED, UNAVAILABLE; nothing is left of it then */
  async restore(
    parts: AsyncIterable<RestoreVolumeRequest>,
    check: (header: RestoreVolumeHeader) => void,
  ): Promise<number> {
    const iterator = parts[Symbol.asyncIterator]();
    const first = await iterator.next();
    const header = first.done ? undefined : first.value.part;
    if (header?.case !== "header")
      throw rpcError(Code.InvalidArgument, "a restore is one header, then chunks, then the end");
    check(header.value);
    const { volume: id, tenant, name, maxBytes } = header.value;
    const bounds = { bytes: Number(maxBytes) || mostBytes, entries: mostEntries };
    this.#enter();
    try {
      return await this.#m.volumes.restore({ id, tenant, name }, async (data) => {
        const tar = `${data}.tar`;
        try {
          await pipeline(
            Readable.from(chunksOf(iterator)),
            createZstdDecompress(),
            atMost(tarBytes(bounds.bytes)),
            createWriteStream(tar, { mode: 0o600 }),
          );
          await unpack(tar, data, bounds, this.#m.signal, "it was");
        } finally {
          await rm(tar, { force: true });
        }
      });
    } finally {
      this.#running--;
      await iterator.return?.();
    }
  }

  #enter(): void {
    if (this.#running >= mostAtOnce)
      throw rpcError(
        Code.ResourceExhausted,
        `${mostAtOnce} backups or restores are under way on this node: try again shortly`,
      );
    this.#running++;
  }

  /** As whom the volume is read: its instance's user, or one that nobody else has; and what that takes. */
  async #begin(id: string, data: string): Promise<Work> {
    const { volumes, ports, uidBase } = this.#m;
    const { uid, gid } = lstatSync(data);
    const isOwned = uid !== process.getuid?.();
    const whoReads = isOwned ? { uid, gid } : undefined;
    // An instance has it: its user may read it, and with the instance the copying ends.
    if (volumes.isLive(id))
      return { identity: whoReads, signal: new AbortController().signal, end: async () => {} };
    const hold = volumes.hold(id, "its backup");
    if (!isOwned) return { identity: undefined, signal: hold.signal, end: async () => hold.release() };
    // The uid of its last instance may be another tenant's by now.
    let port: number | undefined;
    try {
      port = ports.take(`backup of ${id}`);
      const identity = { uid: uidOf(uidBase, port), gid: uidOf(uidBase, port) };
      await handOver(data, identity);
      const end = async () => {
        ports.release(port!, `backup of ${id}`);
        hold.release();
      };
      return { identity, signal: hold.signal, end };
    } catch (error) {
      if (port !== undefined) ports.release(port, `backup of ${id}`);
      hold.release();
      throw error;
    }
  }

  /** Walled in as the tenant's instances are at most: what is in its databases is the tenant's doing. */
  #command(data: string, staging: string, most: number, identity: Identity | undefined): string[] {
    const { sandbox } = this.#m;
    const command = [sandbox.bun.path, this.#program, data, staging, `${most}`];
    if (!identity) return command;
    const confined = sandbox.confine({
      rung: sandbox.highest,
      identity,
      limits: { memoryBytes: 0, cpuMillis: 0, pids: 0, openFiles: 0 },
      sharesUid: false,
      command,
      tenant: "backup",
      directory: dirname(this.#program),
      home: staging,
      cache: undefined,
      binds: [{ source: data, target: data }],
      readable: [sandbox.bun.path],
    });
    return [...confined.command];
  }

  async *#copy(
    id: string,
    data: string,
    { identity }: Work,
    most: number,
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof BackupVolumeResponseSchema>> {
    const { bun } = this.#m.sandbox;
    this.#place();
    const staging = join(data, "..", "staging");
    await rm(staging, { recursive: true, force: true });
    for (const path of [staging, join(staging, "tmp")]) {
      mkdirSync(path, { mode: 0o700 });
      if (identity) chownSync(path, identity.uid, identity.gid);
    }
    const child = Bun.spawn(this.#command(data, staging, most, identity), {
      cwd: "/",
      env: { PATH: "/usr/bin:/bin", HOME: staging, BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0", ...bun.env },
      ...identity,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      killSignal: "SIGKILL",
      signal,
    });
    const said = new Response(child.stderr).text();
    try {
      const compressed = Readable.from(atMost(tarBytes(most))(child.stdout)).pipe(createZstdCompress());
      for await (const bytes of compressed as AsyncIterable<Buffer>) {
        for (let at = 0; at < bytes.length; at += rpcLimits.chunkBytes)
          yield { part: { case: "chunk", value: bytes.subarray(at, at + rpcLimits.chunkBytes) } };
      }
      const code = await child.exited;
      if (signal.aborted)
        throw rpcError(Code.Aborted, `the backup of volume ${id} gave way to an instance that starts`);
      const why = (await said).trim();
      if (code !== 0)
        throw rpcError(
          Code.Unavailable,
          `the backup of volume ${id} failed: ${errorIn(why) || `exit code ${code}`}`,
        );
      if (why)
        this.#m.log.warn({ volume: id, why: why.slice(0, 1_000) }, "a volume was backed up with a remark");
    } finally {
      child.kill("SIGKILL");
      await child.exited;
      await rm(staging, { recursive: true, force: true }).catch((error: unknown) =>
        this.#m.log.warn({ why: messageOf(error) }, "what a backup needed could not be removed"),
      );
    }
  }
}

/** Ends a stream that is longer than it can be. */
const atMost = (most: number) =>
  async function* (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let bytes = 0;
    for await (const chunk of source) {
      bytes += chunk.byteLength;
      if (bytes > most) throw rpcError(Code.ResourceExhausted, `the backup is more than ${most} bytes long`);
      yield chunk;
    }
  };

/** Of a tar with so many bytes in its files: each has a header or two, and is padded. */
const tarBytes = (bytes: number): number => bytes + mostEntries * 4 * 512;

interface Work {
  readonly identity: Identity | undefined;
  /** Aborts when the volume is needed for an instance. */
  readonly signal: AbortSignal;
  end(): Promise<void>;
}

/** @throws ConnectError when it ends before its end was told: half a backup must not pass for a whole one */
async function* chunksOf(parts: AsyncIterator<RestoreVolumeRequest>): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = await parts.next();
    const part = next.done ? undefined : next.value.part;
    if (part?.case === "end") return;
    if (part?.case !== "chunk") throw rpcError(Code.DataLoss, "the backup ended before all of it was sent");
    yield part.value;
  }
}

/** What Bun prints of an error that nobody caught: the line with its name, of many. */
const errorIn = (output: string): string | undefined =>
  output.split("\n").find((line) => /^\w*error\b/i.test(line)) ?? output.split("\n")[0];
