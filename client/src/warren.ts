/**
 * What a control plane uses to talk to a cell, from Bun or from Node ≥ 20. Thin: every RPC is at hand as
 * `scheduler.*` and `metering.*`; what takes more than one call has a method here.
 */

import { clone, type MessageInitShape } from "@bufbuild/protobuf";
import type { Client, Interceptor } from "@connectrpc/connect";
import { connectRpc, type RpcConnection, streaming } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, isRpcCode } from "@warren/common/rpc/errors";
import { connectLeader, type LeaderConnection } from "@warren/common/rpc/leader";
import { rpcLimits } from "@warren/common/rpc/limits";
import { patience } from "@warren/common/rpc/patience";
import { toTimestamp } from "@warren/common/time";
import {
  type Event,
  type Release,
  type ReleaseManifestSchema,
  type Tenant,
  type TenantSpec,
  TenantSpecSchema,
} from "@warren/proto/common";
import { MeteringService } from "@warren/proto/metering";
import { EnrolService, type LogLine, NodeService, SchedulerService } from "@warren/proto/scheduler";
import { type PackOptions, pack } from "./pack.ts";
import { checkSpecInit } from "./spec/check-init.ts";

export interface WarrenOptions {
  /** The scheduler: "https://host:port". With several in the cell, any of them, or better all: the leader is found. */
  readonly url: string | readonly string[];
  /** The metering process; needed only for {@link Warren.metering}. */
  readonly meteringUrl?: string;
  /** CA and token (or certificate) of the cell; see `loadCredentials`. */
  readonly credentials: Credentials;
  /** Deadline of calls that set none, in ms. Default 75,000: longer than a start that its spec gives no time may take. */
  readonly deadlineMs?: number;
  /** Of Connect, around each call: for logs, metrics, or to look at answers. */
  readonly interceptors?: readonly Interceptor[];
}

export interface UploadOptions extends PackOptions {
  readonly version?: string;
  readonly manifest?: MessageInitShape<typeof ReleaseManifestSchema>;
  /** Deadline of the whole upload, in ms. Default 10 minutes. */
  readonly deadlineMs?: number;
}

export interface EventsOptions {
  /** Only this one's. */
  readonly tenant?: string;
  /** After this place in the journal. Default: from now on; without `follow`, or with `since`, from its beginning. */
  readonly after?: bigint;
  /** Go on with new ones. Default true. */
  readonly follow?: boolean;
  /** The last so many of those that there are. */
  readonly tail?: number;
  readonly since?: Date;
  /** "transition", "usage" and so on. Default: all. */
  readonly types?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface LogsOptions {
  /** Lines of the past. Default 100. */
  readonly tail?: number;
  readonly follow?: boolean;
  /** Only this one's: its id, or how that ends. */
  readonly instance?: string;
  /** Only of the one that ended last. */
  readonly previous?: boolean;
  readonly since?: Date;
  /** Tell lines that have no newline yet, too (`partial`); the whole line follows. */
  readonly partial?: boolean;
  readonly signal?: AbortSignal;
  /**
   * Told whose output is read, at the beginning and whenever that changes.
   * @param leftOut how many live ones are not, since only the newest 100 are read at once
   */
  readonly onInstances?: (ids: readonly string[], leftOut: number) => void;
}

export class Warren implements Disposable {
  readonly scheduler: Client<typeof SchedulerService>;
  /** Join tokens: which were used, and revoking one. */
  readonly enrol: Client<typeof EnrolService>;
  readonly #connection: LeaderConnection;
  readonly #metering: RpcConnection | undefined;

  /** Connects at the first call, and again whenever the connection was lost. */
  constructor(options: WarrenOptions) {
    const { url, meteringUrl, deadlineMs = patience.ensure, ...others } = options;
    const shared = { ...others, deadlineMs };
    this.#connection = connectLeader({ urls: typeof url === "string" ? [url] : url, ...shared });
    this.scheduler = this.#connection.client(SchedulerService);
    this.enrol = this.#connection.client(EnrolService);
    this.#metering = meteringUrl ? connectRpc({ url: meteringUrl, ...shared }) : undefined;
  }

  /** Whether a meteringUrl was given. */
  get hasMetering(): boolean {
    return this.#metering !== undefined;
  }

  /** @throws Error when no meteringUrl was given */
  get metering(): Client<typeof MeteringService> {
    if (!this.#metering)
      throw new Error("no meteringUrl was given: usage is answered by the metering process");
    return this.#metering.client(MeteringService);
  }

  /**
   * Packs a directory, with its node_modules, and uploads it.
   * @throws PackError, ConnectError
   */
  async upload(tenant: string, directory: string, options: UploadOptions = {}): Promise<Release> {
    return this.#upload(tenant, () => pack(directory, options), options);
  }

  /**
   * Uploads a release that was packed before: one that {@link download} gave, of this cluster or another.
   * @param bytes called again when the upload has to be made again
   * @throws ConnectError, and what `bytes` throws
   */
  async uploadPacked(
    tenant: string,
    bytes: () => AsyncIterable<Uint8Array>,
    options: Omit<UploadOptions, keyof PackOptions> & { signal?: AbortSignal } = {},
  ): Promise<Release> {
    return this.#upload(tenant, bytes, options);
  }

  /** The bytes of a release, as they were uploaded. @throws ConnectError NOT_FOUND */
  async *download(digest: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const nodes = this.#connection.client(NodeService);
    for await (const { chunk } of streaming(
      (s) => nodes.downloadRelease({ digest }, { signal: s }),
      signal,
    )) {
      yield chunk;
    }
  }

  async #upload(
    tenant: string,
    packed: () => AsyncIterable<Uint8Array>,
    { version = "", manifest, deadlineMs = 600_000, signal }: UploadOptions,
  ): Promise<Release> {
    async function* parts(): AsyncGenerator<UploadPart> {
      yield { part: { case: "header", value: { tenant, version, manifest } } };
      for await (const bytes of packed()) {
        for (let at = 0; at < bytes.byteLength; at += rpcLimits.chunkBytes) {
          yield { part: { case: "chunk", value: bytes.subarray(at, at + rpcLimits.chunkBytes) } };
        }
      }
    }
    let packing: unknown;
    try {
      const note = (error: unknown) => {
        packing = error;
      };
      // Named by its digest, an upload may be made twice; each is packed anew, since a stream can be read only once.
      const { release } = await this.#connection.follow(
        (leader, timeoutMs) =>
          leader.client(SchedulerService).uploadRelease(noting(parts(), note), { timeoutMs, signal }),
        { deadlineMs, idempotent: true, signal },
      );
      return release!;
    } catch (error) {
      // The call only knows that its input failed; the reason is ours.
      throw packing ?? error;
    }
  }

  /**
   * Applies a spec: an object of the contract's fields, or what `specFromJson` made of JSON.
   * @param expectedVersion only if the tenant is at this version; else ABORTED
   * @throws SpecError naming a field that there is not, ConnectError
   */
  async apply(spec: MessageInitShape<typeof TenantSpecSchema>, expectedVersion?: bigint): Promise<Tenant> {
    checkSpecInit(spec);
    const { tenant } = await this.scheduler.applyTenant({ spec: spec as TenantSpec, expectedVersion });
    return tenant!;
  }

  /**
   * Changes a tenant's spec: reads it, has it edited, applies it, and does so again when somebody else was faster, so that no
   * edit is lost. What is edited is the spec that serves, if the newest was rolled back.
   * @param edit changes the spec in place; it may be called again, with another one. It is told the tenant as it is.
   * @throws ConnectError, ABORTED when others were faster too often
   */
  async edit(key: string, edit: (spec: TenantSpec, tenant: Tenant) => unknown): Promise<Tenant> {
    for (let attempt = 0; ; attempt++) {
      const { tenant } = await this.scheduler.getTenant({ tenant: key });
      const spec = clone(TenantSpecSchema, tenant!.servingSpec ?? tenant!.spec!);
      await edit(spec, tenant!);
      try {
        return await this.apply(spec, tenant!.version);
      } catch (error) {
        if (!isRpcCode(error, Code.Aborted) || attempt >= mostEdits) throw error;
      }
    }
  }

  /**
   * Events as they happen; ends with the signal or with the loop. Without `follow` those of the past: all that the journal
   * has, all after `after`, or the last `tail`. With `since` those from then on, and then, with `follow`, new ones.
   */
  async *events(options: EventsOptions = {}): AsyncGenerator<Event> {
    const { tenant = "", follow = true, tail, since, types = [], signal } = options;
    const asksForPast = tail === undefined && (!follow || since !== undefined);
    const request = {
      tenant,
      after: options.after ?? (asksForPast ? 0n : undefined),
      follow,
      tail,
      since: since && toTimestamp(since.getTime()),
      types: [...types],
    };
    for await (const { event } of streaming(
      (s) => this.scheduler.watchEvents(request, { signal: s }),
      signal,
    )) {
      if (event) yield event;
    }
  }

  /** Output of all of a tenant's instances, in the order in which it was read; with `follow` it goes on over restarts. */
  async *logs(tenant: string, options: LogsOptions = {}): AsyncGenerator<LogLine> {
    const { since, signal, onInstances, ...rest } = options;
    const request = { tenant, ...rest, since: since && toTimestamp(since.getTime()) };
    for await (const { lines, instances, leftOut } of streaming(
      (s) => this.scheduler.streamLogs(request, { signal: s }),
      signal,
    )) {
      if (instances.length > 0) onInstances?.(instances, leftOut);
      yield* lines;
    }
  }

  /** Ends the connections and every call on them. */
  close(): void {
    this.#connection.close();
    this.#metering?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Tries of an edit, when others edit the same spec. */
const mostEdits = 10;

type UploadPart = {
  part:
    | {
        case: "header";
        value: { tenant: string; version: string; manifest?: MessageInitShape<typeof ReleaseManifestSchema> };
      }
    | { case: "chunk"; value: Uint8Array };
};

async function* noting<T>(source: AsyncIterable<T>, failed: (error: unknown) => void): AsyncGenerator<T> {
  try {
    yield* source;
  } catch (error) {
    failed(error);
    throw error;
  }
}
