/**
 * What a control plane uses to talk to a cell, from Bun or from Node ≥ 20. Thin: every RPC is at hand as
 * `scheduler.*` and `metering.*`; what takes more than one call has a method here.
 */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { connectRpc, type RpcConnection, streaming } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { connectLeader, type LeaderConnection } from "@warren/common/rpc/leader";
import { rpcLimits } from "@warren/common/rpc/limits";
import { patience } from "@warren/common/rpc/patience";
import type {
  Event,
  Release,
  ReleaseManifestSchema,
  Tenant,
  TenantSpec,
  TenantSpecSchema,
} from "@warren/proto/common";
import { MeteringService } from "@warren/proto/metering";
import { EnrolService, type LogLine, SchedulerService } from "@warren/proto/scheduler";
import { type PackOptions, pack } from "./pack.ts";

export interface WarrenOptions {
  /** The scheduler: "https://host:port". With several in the cell, any of them, or better all: the leader is found. */
  readonly url: string | readonly string[];
  /** The metering process; needed only for {@link Warren.metering}. */
  readonly meteringUrl?: string;
  /** CA and token (or certificate) of the cell; see `loadCredentials`. */
  readonly credentials: Credentials;
  /** Deadline of calls that set none, in ms. Default 75,000: longer than a start that its spec gives no time may take. */
  readonly deadlineMs?: number;
}

export interface UploadOptions extends PackOptions {
  readonly version?: string;
  readonly manifest?: MessageInitShape<typeof ReleaseManifestSchema>;
  /** Deadline of the whole upload, in ms. Default 10 minutes. */
  readonly deadlineMs?: number;
}

export class Warren implements Disposable {
  readonly scheduler: Client<typeof SchedulerService>;
  /** Join tokens: which were used, and revoking one. */
  readonly enrol: Client<typeof EnrolService>;
  readonly #connection: LeaderConnection;
  readonly #metering: RpcConnection | undefined;

  /** Connects at the first call, and again whenever the connection was lost. */
  constructor(options: WarrenOptions) {
    const { url, meteringUrl, credentials, deadlineMs } = options;
    this.#connection = connectLeader({
      urls: typeof url === "string" ? [url] : url,
      credentials,
      deadlineMs: deadlineMs ?? patience.ensure,
    });
    this.scheduler = this.#connection.client(SchedulerService);
    this.enrol = this.#connection.client(EnrolService);
    this.#metering = meteringUrl ? connectRpc({ url: meteringUrl, credentials, deadlineMs }) : undefined;
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
    const { version = "", manifest, deadlineMs = 600_000, signal } = options;
    async function* parts(): AsyncGenerator<UploadPart> {
      yield { part: { case: "header", value: { tenant, version, manifest } } };
      for await (const bytes of pack(directory, options)) {
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

  /** Applies a spec. @throws ConnectError */
  async apply(spec: MessageInitShape<typeof TenantSpecSchema>): Promise<Tenant> {
    const { tenant } = await this.scheduler.applyTenant({ spec: spec as TenantSpec });
    return tenant!;
  }

  /** Events as they happen (without `follow`: those there are); ends with the signal or with the loop. */
  async *events(
    options: { tenant?: string; after?: bigint; follow?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<Event> {
    const { tenant = "", after, follow = true, signal } = options;
    for await (const { event } of streaming(
      (s) => this.scheduler.watchEvents({ tenant, after, follow }, { signal: s }),
      signal,
    )) {
      if (event) yield event;
    }
  }

  /** Output of a tenant's instances; with `follow` it goes on over restarts. */
  async *logs(
    tenant: string,
    options: { tail?: number; follow?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<LogLine> {
    const { tail, follow, signal } = options;
    for await (const { lines } of streaming(
      (s) => this.scheduler.streamLogs({ tenant, tail, follow }, { signal: s }),
      signal,
    )) {
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
