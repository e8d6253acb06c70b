/** Releases on this node: fetched once, verified against their digest, unpacked, kept while there is room. */
import { createHash } from "node:crypto";
import { chmodSync, chownSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "@warren/common/log";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { makePrivateDirectory, messageOf, readIfThere, removeTree, writeWhole } from "./files.ts";
import { UnpackError, unpack } from "./unpack.ts";

export interface ReleaseBounds {
  /** All unpacked releases together; those in use are kept beyond it. */
  readonly cacheBytes: number;
  /** And so many of them. */
  readonly cacheCount: number;
  /** One release's tar. */
  readonly tarBytes: number;
  /** One release unpacked. */
  readonly unpackedBytes: number;
  readonly entries: number;
  /** Until a release must be here. */
  readonly fetchMs: number;
}

export const defaultReleaseBounds: ReleaseBounds = {
  cacheBytes: 10 * 1024 ** 3,
  cacheCount: 10_000,
  tarBytes: 512 * 1024 ** 2,
  unpackedBytes: 1024 ** 3,
  entries: 100_000,
  fetchMs: 5 * 60_000,
};

/** Where a release's bytes come from. */
export type Download = (digest: string, signal: AbortSignal) => AsyncIterable<Uint8Array>;

export interface ReleaseCacheOptions {
  readonly directory: string;
  readonly download: Download;
  readonly log: Logger;
  /** Digests that a live instance runs from: never evicted. */
  readonly inUse: () => ReadonlySet<string>;
  /**
   * Where tenants have uids of their own: the first group id for releases. Each has one of its own, and only who is in
   * it can enter its directory: what lies below may be readable by all.
   */
  readonly gidBase?: number;
  readonly bounds?: Partial<ReleaseBounds>;
}

interface Cached {
  readonly path: string;
  readonly bytes: number;
  /** The group that may read it; undefined where tenants are the agent's own user. */
  readonly gid: number | undefined;
  usedAt: number;
}

const digestPattern = /^sha256:([0-9a-f]{64})$/;

export class ReleaseCache {
  readonly #options: ReleaseCacheOptions;
  readonly #bounds: ReleaseBounds;
  readonly #cached = new Map<string, Cached>();
  readonly #flights = new Map<string, Promise<string>>();
  readonly #closing = new AbortController();

  constructor(options: ReleaseCacheOptions) {
    this.#options = options;
    this.#bounds = { ...defaultReleaseBounds, ...options.bounds };
    makePrivateDirectory(options.directory);
    const gidOf = (name: string) => statSync(join(options.directory, name)).gid;
    // Those that have a group of their own keep it: they come before those that are given one.
    for (const name of readdirSync(options.directory).sort((a, b) => gidOf(b) - gidOf(a))) {
      const path = join(options.directory, name);
      if (name.endsWith(".bytes")) continue;
      const bytes = Number(readIfThere(`${path}.bytes`) ?? Number.NaN);
      // A directory gets its final name only when it is whole; whatever else is here is half of something.
      if (/^[0-9a-f]{64}$/.test(name) && Number.isFinite(bytes)) {
        const usedAt = statSync(path).mtimeMs;
        this.#cached.set(`sha256:${name}`, { path, bytes, gid: this.#admit(path), usedAt });
      } else {
        removeTree(path);
      }
    }
  }

  has(digest: string): boolean {
    return this.#cached.has(digest);
  }

  /** The group that may read a release that is here. */
  gid(digest: string): number | undefined {
    return this.#cached.get(digest)?.gid;
  }

  /**
   * The directory of a release, fetched if it is not here. Several callers share one fetch; it goes on when one of them
   * goes away.
   * @throws ConnectError UNAVAILABLE when it cannot be fetched, FAILED_PRECONDITION when its bytes are not what the
   * digest says or cannot be unpacked safely
   */
  async ensure(digest: string): Promise<string> {
    const cached = this.#cached.get(digest);
    if (cached) {
      cached.usedAt = Date.now();
      const now = new Date();
      utimesSync(cached.path, now, now);
      return cached.path;
    }
    let flight = this.#flights.get(digest);
    if (!flight) {
      flight = this.#fetch(digest).finally(() => this.#flights.delete(digest));
      this.#flights.set(digest, flight);
    }
    return flight;
  }

  /** Ends fetches under way. */
  close(): void {
    this.#closing.abort(rpcError(Code.Unavailable, "the agent is stopping"));
  }

  async #fetch(digest: string): Promise<string> {
    const hex = digestPattern.exec(digest)?.[1];
    if (!hex) throw rpcError(Code.InvalidArgument, `release: ${digest} is no sha256 digest`);
    const path = join(this.#options.directory, hex);
    const tar = `${path}.tar`;
    const trial = `${path}.new`;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#bounds.fetchMs)]);
    try {
      await this.#download(digest, tar, signal);
      removeTree(trial);
      makePrivateDirectory(trial);
      const bytes = await unpack(
        tar,
        trial,
        { bytes: this.#bounds.unpackedBytes, entries: this.#bounds.entries },
        signal,
      );
      this.#makeRoom(bytes);
      writeWhole(`${path}.bytes`, String(bytes));
      renameSync(trial, path);
      this.#cached.set(digest, { path, bytes, gid: this.#admit(path), usedAt: Date.now() });
      return path;
    } catch (error) {
      removeTree(trial);
      if (error instanceof UnpackError) {
        throw rpcError(Code.FailedPrecondition, `release ${digest} is refused: ${error.message}`);
      }
      if (error instanceof ConnectError && error.code === Code.FailedPrecondition) throw error;
      throw rpcError(Code.Unavailable, `release ${digest} cannot be fetched: ${messageOf(error)}`);
    } finally {
      rmSync(tar, { force: true });
    }
  }

  /** Lets a group of its own into the directory; it keeps the one it has, since instances may run from it. */
  #admit(path: string): number | undefined {
    const { gidBase } = this.#options;
    if (gidBase === undefined) return undefined;
    const taken = new Set([...this.#cached.values()].map((one) => one.gid));
    let { gid } = statSync(path);
    if (gid < gidBase || taken.has(gid)) {
      gid = gidBase;
      while (taken.has(gid)) gid++;
    }
    chownSync(path, 0, gid);
    chmodSync(path, 0o750);
    return gid;
  }

  async #download(digest: string, tar: string, signal: AbortSignal): Promise<void> {
    const hash = createHash("sha256");
    let bytes = 0;
    const file = await open(tar, "w", 0o600);
    try {
      for await (const chunk of this.#options.download(digest, signal)) {
        signal.throwIfAborted();
        bytes += chunk.length;
        if (bytes > this.#bounds.tarBytes) {
          throw rpcError(
            Code.FailedPrecondition,
            `release ${digest} is more than ${this.#bounds.tarBytes} bytes`,
          );
        }
        hash.update(chunk);
        await file.writeFile(chunk);
      }
    } finally {
      await file.close();
    }
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) {
      throw rpcError(
        Code.FailedPrecondition,
        `release ${digest} is refused: its bytes have the digest ${found}`,
      );
    }
  }

  /** Least recently used first, none that runs. */
  #makeRoom(bytes: number): void {
    const inUse = this.#options.inUse();
    let total = bytes + [...this.#cached.values()].reduce((sum, one) => sum + one.bytes, 0);
    const oldest = [...this.#cached].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [digest, one] of oldest) {
      if (total <= this.#bounds.cacheBytes && this.#cached.size < this.#bounds.cacheCount) return;
      if (inUse.has(digest)) continue;
      this.#cached.delete(digest);
      total -= one.bytes;
      this.#options.log.info({ release: digest, bytes: one.bytes }, "a release was evicted from the cache");
      removeTree(`${one.path}.bytes`); // first: without it the directory counts as half of something
      removeTree(one.path);
    }
  }
}
