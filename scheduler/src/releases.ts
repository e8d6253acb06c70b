/**
 * Releases arrive as a stream, are named by what was received, and are stored whole or not at all. The digest is
 * computed here: what a client says about its bytes is never believed.
 */
import { createHash } from "node:crypto";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { rpcLimits } from "@warren/common/rpc/limits";
import { type Clock, toTimestamp } from "@warren/common/time";
import { type Release, ReleaseSchema } from "@warren/proto/common";
import type { UploadReleaseHeader, UploadReleaseRequest } from "@warren/proto/scheduler";
import { BlobNotFoundError, type Blobs } from "@warren/store";
import { Holds } from "./holds.ts";
import { blobName } from "./records.ts";

export interface ReleasesOptions {
  readonly blobs: Blobs;
  /** For what is being received. */
  readonly directory: string;
  readonly clock: Clock;
  /** Largest release in bytes. Default 512 MiB. */
  readonly maxBytes?: number;
  /** Most uploads at once. Default 4. */
  readonly maxUploads?: number;
  /** How long what came is kept from being collected, in ms. Default 1 h. */
  readonly holdMs?: number;
  /** Without a chunk for so long, in ms, an upload is given up. Default 30 s. */
  readonly silenceMs?: number;
}

export class Releases {
  readonly #options: Required<ReleasesOptions>;
  readonly holds: Holds;
  #uploads = 0;

  constructor(options: ReleasesOptions) {
    this.#options = {
      maxBytes: 512 * 1024 * 1024,
      maxUploads: 4,
      silenceMs: 30_000,
      holdMs: 3_600_000,
      ...options,
    };
    this.holds = new Holds(this.#options.holdMs, () => options.clock.monotonic());
  }

  /** What an earlier process left half received is of no use to anybody. */
  async start(): Promise<void> {
    await rm(this.#options.directory, { recursive: true, force: true });
    await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
  }

  /**
   * @throws ConnectError INVALID_ARGUMENT (parts out of order, nothing sent), RESOURCE_EXHAUSTED (too large, too many)
   */
  async receive(parts: AsyncIterable<UploadReleaseRequest>): Promise<Release> {
    const { directory, blobs, clock, maxBytes, maxUploads } = this.#options;
    if (this.#uploads >= maxUploads) {
      throw rpcError(
        Code.ResourceExhausted,
        `${maxUploads} uploads are under way, the most allowed: try again shortly`,
      );
    }
    this.#uploads++;
    const path = join(directory, ulid());
    try {
      const file = await open(path, "wx", 0o600);
      const hash = createHash("sha256");
      let header: UploadReleaseHeader | undefined;
      let size = 0;
      try {
        for await (const { part } of this.#alive(parts)) {
          if (part.case === "header" && !header) header = part.value;
          else if (part.case === "chunk" && header) {
            size += part.value.byteLength;
            if (size > maxBytes) {
              throw rpcError(
                Code.ResourceExhausted,
                `the release is over ${maxBytes} bytes: leave out what it does not need (.warrenignore)`,
              );
            }
            hash.update(part.value);
            await file.write(part.value);
          } else throw rpcError(Code.InvalidArgument, "an upload is one header, then chunks");
        }
        await file.sync();
      } finally {
        await file.close();
      }
      if (!header || size === 0)
        throw rpcError(Code.InvalidArgument, "an upload is one header, then chunks; this one was empty");
      const digest = `sha256:${hash.digest("hex")}`;
      await this.holds.arrive(digest);
      await blobs.put(blobName(digest), Bun.file(path).stream() as unknown as AsyncIterable<Uint8Array>);
      return create(ReleaseSchema, {
        digest,
        tenant: header.tenant,
        version: header.version,
        sizeBytes: BigInt(size),
        createdAt: toTimestamp(clock.now()),
        manifest: header.manifest,
      });
    } finally {
      this.#uploads--;
      await rm(path, { force: true });
    }
  }

  /** The bytes in chunks. @throws ConnectError NOT_FOUND */
  async *send(digest: string, signal: AbortSignal): AsyncGenerator<{ chunk: Uint8Array }> {
    try {
      for await (const bytes of this.#options.blobs.get(blobName(digest), signal)) {
        for (let at = 0; at < bytes.byteLength; at += rpcLimits.chunkBytes) {
          yield { chunk: bytes.subarray(at, at + rpcLimits.chunkBytes) };
        }
      }
    } catch (error) {
      if (error instanceof BlobNotFoundError) throw rpcError(Code.NotFound, `no release ${digest}`);
      throw error;
    }
  }

  /** A client that has stopped sending must not hold an upload's place for ever. */
  async *#alive<T>(parts: AsyncIterable<T>): AsyncGenerator<T> {
    const { silenceMs } = this.#options;
    const iterator = parts[Symbol.asyncIterator]();
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () =>
            reject(
              rpcError(Code.DeadlineExceeded, `nothing was sent for ${silenceMs} ms: the upload is given up`),
            ),
          silenceMs,
        );
      });
      try {
        const next = await Promise.race([iterator.next(), silence]);
        if (next.done) return;
        yield next.value;
      } finally {
        clearTimeout(timer);
      }
    }
  }
}
