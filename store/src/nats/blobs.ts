import { createHash, type Hash } from "node:crypto";
import { JetStreamApiCodes } from "@nats-io/jetstream";
import { type ObjectInfo, type ObjectStore, Objm } from "@nats-io/obj";
import { pause } from "@warren/common/time";
import { BlobNotFoundError, StoreInputError, StoreUnavailableError } from "../errors.ts";
import { checkBlobName } from "../limits.ts";
import type { Blobs } from "../store.ts";
import { anySignal, Backoff, monotonic } from "../time.ts";
import { apiCode, type NatsLink, REQUEST_MS, unavailable } from "./connection.ts";
import { OrderedPull } from "./ordered-pull.ts";
import { BLOBS_BUCKET, BLOBS_STREAM } from "./streams.ts";

/** Chunks of 128 KiB that one read asks for. */
const READ_CHUNKS = 16;
/** A blob from or for which nothing comes for that long is given up. */
const STALL_MS = 30_000;
/** Chunks without an object are what a crashed `put` left, once they are older than any `put` takes. */
const ORPHAN_AGE_MS = 3_600_000;

const CHUNKS = `$O.${BLOBS_BUCKET}.C.`;
const METAS = `$O.${BLOBS_BUCKET}.M.`;

/**
 * Blobs in an Object Store bucket. The client library writes them; reading is our own, because the library's takes a
 * whole object into memory when its reader is slow, and does not end when the server goes away.
 */
export class NatsBlobs implements Blobs {
  private constructor(
    readonly link: NatsLink,
    readonly objects: ObjectStore,
    readonly maxBytes: number,
  ) {}

  /** The bucket's stream exists already. */
  static async open(link: NatsLink, maxBytes: number): Promise<NatsBlobs> {
    return new NatsBlobs(link, await new Objm(link.js).open(BLOBS_BUCKET, false), maxBytes);
  }

  async put(name: string, bytes: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
    checkBlobName(name);
    signal?.throwIfAborted();
    if (await this.has(name)) return;
    const source = new BoundedSource(name, bytes, this.maxBytes, signal);
    try {
      await this.link.guard(() => this.objects.put({ name }, source.stream, { timeout: REQUEST_MS }));
    } catch (cause) {
      if (source.failure !== undefined) throw source.failure;
      // The library may still be waiting for an answer: it must find no more bytes when it goes on.
      source.stop();
      throw unavailable(this.link, `storing the blob ${name}`, cause);
    } finally {
      await source.close();
    }
  }

  async *get(name: string, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    checkBlobName(name);
    const info = await this.#info(name);
    if (info === undefined) throw new BlobNotFoundError(`there is no blob ${name}`);
    const hash = createHash("sha256");
    if (info.chunks > 0) yield* this.#chunks(info, hash, signal);
    checkDigest(info, hash);
  }

  async has(name: string): Promise<boolean> {
    checkBlobName(name);
    return (await this.#info(name)) !== undefined;
  }

  async delete(name: string): Promise<void> {
    checkBlobName(name);
    const info = await this.#info(name);
    if (info === undefined) return;
    await this.#guarded(`deleting the blob ${name}`, async () => {
      // First the name, then the bytes: never a name whose bytes are gone. And the name's message too, where the
      // library would leave a "deleted" mark for ever.
      await this.link.jsm.streams.purge(BLOBS_STREAM, { filter: metaSubject(name) });
      await this.link.jsm.streams.purge(BLOBS_STREAM, { filter: CHUNKS + info.nuid });
    });
  }

  async list(): Promise<readonly { name: string; size: number }[]> {
    const infos = await this.#guarded("listing the blobs", () => this.#infos(AbortSignal.timeout(STALL_MS)));
    return infos.map(({ name, size }) => ({ name, size }));
  }

  /**
   * Removes the chunks of puts that never ended.
   * @returns how many objects' chunks were removed
   */
  async sweep(signal: AbortSignal): Promise<number> {
    const filter = `${CHUNKS}>`;
    const state = (await this.link.jsm.streams.info(BLOBS_STREAM, { subjects_filter: filter })).state;
    // The names are read after the chunks: a put that ends in between is not taken for an orphan.
    const known = new Set((await this.#infos(signal)).map(({ nuid }) => CHUNKS + nuid));
    let swept = 0;
    for (const subject of Object.keys(state.subjects ?? {})) {
      if (signal.aborted) break;
      if (known.has(subject)) continue;
      const last = await this.link.jsm.streams.getMessage(BLOBS_STREAM, { last_by_subj: subject });
      if (last === null || Date.now() - last.time.getTime() < ORPHAN_AGE_MS) continue;
      await this.link.jsm.streams.purge(BLOBS_STREAM, { filter: subject });
      swept++;
    }
    return swept;
  }

  async *#chunks(
    info: ObjectInfo,
    hash: Hash,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const over = anySignal(signal);
    const pull = new OrderedPull(this.link, {
      stream: BLOBS_STREAM,
      filter: CHUNKS + info.nuid,
      after: 0,
      batch: READ_CHUNKS,
    });
    const backoff = new Backoff(50, 1000);
    let left = info.chunks;
    let progressAt = monotonic();
    try {
      while (left > 0) {
        signal?.throwIfAborted();
        if (monotonic() - progressAt > STALL_MS) {
          throw new StoreUnavailableError(
            `NATS at ${this.link.url}: nothing of the blob ${info.name} came for ${STALL_MS} ms`,
          );
        }
        const deliveries = await this.#nextChunks(pull, over, backoff);
        for (const { msg } of deliveries.slice(0, left)) {
          hash.update(msg.data);
          left--;
          yield msg.data;
        }
        // After the yields, so that a slow reader is not taken for a stalled server.
        if (deliveries.length > 0) progressAt = monotonic();
      }
    } finally {
      await pull.close();
    }
  }

  async #nextChunks(pull: OrderedPull, signal: AbortSignal, backoff: Backoff) {
    try {
      const deliveries = await pull.next(signal, true);
      if (deliveries.length > 0) backoff.reset();
      return deliveries;
    } catch {
      // An outage passes; how long we wait for that is the caller's bound.
      await pause(backoff.next(), signal);
      return [];
    }
  }

  /** Undefined when there is no such blob. */
  async #info(name: string): Promise<ObjectInfo | undefined> {
    return this.#guarded(`looking up the blob ${name}`, async () => {
      try {
        const info = await this.objects.info(name);
        return info === null || info.deleted ? undefined : info;
      } catch (error) {
        if (apiCode(error) === JetStreamApiCodes.NoMessageFound) return undefined;
        throw error;
      }
    });
  }

  /** Of all blobs, in one pass over their names. */
  async #infos(signal: AbortSignal): Promise<ObjectInfo[]> {
    const found = new Map<string, ObjectInfo>();
    const pull = new OrderedPull(this.link, {
      stream: BLOBS_STREAM,
      filter: `${METAS}>`,
      after: 0,
      batch: 256,
    });
    try {
      do {
        signal.throwIfAborted();
        for (const { msg } of await pull.next(signal, false)) {
          const info = JSON.parse(new TextDecoder().decode(msg.data)) as ObjectInfo;
          if (info.deleted) found.delete(info.name);
          else found.set(info.name, info);
        }
      } while (pull.pending > 0);
    } finally {
      await pull.close();
    }
    return [...found.values()];
  }

  async #guarded<T>(doing: string, work: () => Promise<T>): Promise<T> {
    try {
      return await this.link.guard(work);
    } catch (cause) {
      throw unavailable(this.link, doing, cause);
    }
  }
}

/** A caller's bytes as the stream that the library wants, counted and with an end to waiting. */
class BoundedSource {
  readonly stream: ReadableStream<Uint8Array>;
  readonly #iterator: AsyncIterator<Uint8Array>;
  /** Why the source ended early: the caller's own error, or a bound. */
  failure: unknown;
  readonly #stopped = new AbortController();
  #size = 0;

  constructor(
    readonly name: string,
    bytes: AsyncIterable<Uint8Array>,
    readonly maxBytes: number,
    readonly signal: AbortSignal | undefined,
  ) {
    this.#iterator = bytes[Symbol.asyncIterator]();
    this.stream = new ReadableStream<Uint8Array>(
      { pull: (controller) => this.#pull(controller) },
      { highWaterMark: 1 },
    );
  }

  stop(): void {
    this.#stopped.abort(new Error("the put has failed"));
  }

  async close(): Promise<void> {
    try {
      await this.#iterator.return?.();
    } catch {
      // Its owner's clean-up; what the put came to is said already.
    }
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    try {
      const chunk = await this.#next();
      if (chunk === undefined) {
        controller.close();
        return;
      }
      this.#size += chunk.byteLength;
      if (this.#size > this.maxBytes)
        throw new StoreInputError(`blob ${this.name} is over ${this.maxBytes} bytes`);
      // An empty chunk would not be asked past.
      if (chunk.byteLength > 0) controller.enqueue(chunk);
      else await this.#pull(controller);
    } catch (error) {
      this.failure = error;
      controller.error(error);
    }
  }

  async #next(): Promise<Uint8Array | undefined> {
    this.signal?.throwIfAborted();
    this.#stopped.signal.throwIfAborted();
    const stalled = AbortSignal.timeout(STALL_MS);
    const over = anySignal(stalled, this.signal, this.#stopped.signal);
    const aborted = Promise.withResolvers<never>();
    const abort = () => aborted.reject(over.reason);
    over.addEventListener("abort", abort, { once: true });
    try {
      const result = await Promise.race([this.#iterator.next(), aborted.promise]);
      return result.done ? undefined : result.value;
    } catch (error) {
      if (error !== stalled.reason) throw error;
      throw new StoreUnavailableError(`the bytes of the blob ${this.name} stopped coming for ${STALL_MS} ms`);
    } finally {
      over.removeEventListener("abort", abort);
    }
  }
}

function checkDigest(info: ObjectInfo, hash: Hash): void {
  const digest = `SHA-256=${hash.digest("base64url")}`;
  // The library pads its base64.
  if (digest !== info.digest.replace(/=+$/, "")) {
    throw new StoreUnavailableError(
      `the blob ${info.name} is corrupt: its digest is ${digest}, stored as ${info.digest}`,
    );
  }
}

function metaSubject(name: string): string {
  const encoded = Buffer.from(name).toString("base64url");
  return METAS + encoded.padEnd(Math.ceil(encoded.length / 4) * 4, "=");
}
