/**
 * The bytes of backups between agents and the blob store: a compressed tar, in parts that fit into a blob. Nothing is kept on
 * the way. A backup counts only once its record is in the state log; bytes that no record names are collected (collector.ts).
 */
import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, isRpcCode } from "@warren/common/rpc/errors";
import { rpcLimits } from "@warren/common/rpc/limits";
import {
  AgentService,
  type BackupVolumeResponse,
  type RestoreVolumeRequestSchema,
} from "@warren/proto/agent";
import { type Backup, type BackupPart, BackupPartSchema, BackupSchema } from "@warren/proto/common";
import type { Blobs } from "@warren/store";
import type { Agents } from "./agents.ts";
import type { Effect, StartVolume } from "./core/effects.ts";
import type { BackupOutcome, Input } from "./core/inputs.ts";
import type { Holds } from "./holds.ts";

/** A blob holds at most 512 MiB. */
const partBytes = 256 * 1024 * 1024;
/** For all of a volume: the longest that any call may take. */
const backupMs = 900_000;

export interface BackupBytesOptions {
  readonly agents: Agents;
  readonly blobs: Blobs;
  /** Keeps blobs until a record names them. */
  readonly holds: Holds;
  readonly epoch: bigint;
  readonly signal: AbortSignal;
}

export class BackupBytes {
  readonly #options: BackupBytesOptions;

  constructor(options: BackupBytesOptions) {
    this.#options = options;
  }

  async backUp({ tenant, name, id, ...effect }: Extract<Effect, { type: "backup-volume" }>): Promise<Input> {
    let outcome: BackupOutcome;
    try {
      outcome = await this.#backUp({ id, ...effect });
    } catch (error) {
      const missing = isRpcCode(error, Code.Unimplemented);
      const message = missing
        ? "the agent of its node is older and cannot"
        : ConnectError.from(error).rawMessage;
      outcome = { kind: "failed", message };
    }
    return { type: "backed-up", tenant, name, id, outcome };
  }

  async #backUp(effect: {
    readonly id: string;
    readonly backup: string;
    readonly fingerprint: string;
    readonly maxBytes: number;
    readonly agentUrl: string;
  }): Promise<BackupOutcome> {
    const { agents, epoch, signal } = this.#options;
    const stop = new AbortController();
    try {
      const stream = agents
        .connection(effect.agentUrl)
        .client(AgentService)
        .backupVolume(
          {
            epoch,
            volume: effect.id,
            unlessFingerprint: effect.fingerprint,
            maxBytes: BigInt(effect.maxBytes),
          },
          { timeoutMs: backupMs, signal: AbortSignal.any([signal, stop.signal]) },
        );
      const messages = stream[Symbol.asyncIterator]();
      const first = await messages.next();
      const header = first.done ? undefined : first.value.part;
      if (header?.case !== "header") throw new ConnectError("the agent sent no header", Code.Internal);
      const { asOf, fingerprint, unchanged } = header.value;
      if (unchanged) return { kind: "unchanged", asOf };
      const parts = await this.#store(effect.backup, new ChunkReader(messages));
      const bytes = parts.reduce((sum, part) => sum + part.bytes, 0n);
      return {
        kind: "made",
        backup: create(BackupSchema, { id: effect.backup, asOf, parts, bytes, fingerprint }),
      };
    } finally {
      stop.abort(); // a stream that is left is not cancelled by leaving it
    }
  }

  async #store(backup: string, chunks: ChunkReader): Promise<BackupPart[]> {
    const { blobs, holds, signal } = this.#options;
    const parts: BackupPart[] = [];
    while (!chunks.isDone) {
      const blob = `volume-${backup}-${parts.length}`;
      holds.hold(`sha256:${blob}`);
      const hash = createHash("sha256");
      let bytes = 0;
      const part = async function* () {
        for (let next = await chunks.next(); next !== undefined; next = await chunks.next()) {
          hash.update(next);
          bytes += next.byteLength;
          yield next;
          if (bytes >= partBytes) return;
        }
      };
      await blobs.put(blob, part(), signal);
      parts.push(
        create(BackupPartSchema, { blob, bytes: BigInt(bytes), digest: `sha256:${hash.digest("hex")}` }),
      );
      await chunks.look();
    }
    return parts;
  }

  /** Brings to a node what is to be there before an instance starts. @throws ConnectError, Error when it could not */
  async restore({ ref, volumes, agentUrl }: Extract<Effect, { type: "start" }>): Promise<void> {
    for (const volume of volumes)
      if (volume.restore) await this.#restore(ref.tenant, volume, volume.restore, agentUrl);
  }

  async #restore(
    tenant: string,
    { name, id, maxBytes }: StartVolume,
    backup: Backup,
    agentUrl: string,
  ): Promise<void> {
    const { agents, blobs, epoch, signal } = this.#options;
    let damaged: Error | undefined;
    const messages = async function* (): AsyncGenerator<MessageInitShape<typeof RestoreVolumeRequestSchema>> {
      yield {
        part: { case: "header", value: { epoch, volume: id, tenant, name, maxBytes: BigInt(maxBytes) } },
      };
      for (const part of backup.parts) {
        const hash = createHash("sha256");
        for await (const bytes of blobs.get(part.blob, signal)) {
          hash.update(bytes);
          for (let at = 0; at < bytes.byteLength; at += rpcLimits.chunkBytes)
            yield { part: { case: "chunk", value: bytes.subarray(at, at + rpcLimits.chunkBytes) } };
        }
        // Before the end is told: without it the agent takes nothing of it.
        if (`sha256:${hash.digest("hex")}` !== part.digest) {
          damaged = new Error(
            `backup ${backup.id} of volume ${name} is damaged: its bytes are not those that were stored`,
          );
          throw damaged;
        }
      }
      yield { part: { case: "end", value: {} } };
    };
    try {
      await agents
        .connection(agentUrl)
        .client(AgentService)
        .restoreVolume(messages(), { timeoutMs: backupMs, signal });
    } catch (error) {
      throw damaged ?? error;
    }
  }

  async remove({ id, agentUrl, ...asked }: Extract<Effect, { type: "remove-volume" }>): Promise<Input> {
    const { agents, epoch, signal } = this.#options;
    const { call, tenant, name } = asked;
    try {
      await agents
        .connection(agentUrl)
        .client(AgentService)
        .removeVolume({ epoch, volume: id }, { timeoutMs: 120_000, signal });
      return { type: "volume-removed", call, tenant, name, id };
    } catch (error) {
      return { type: "volume-removed", call, tenant, name, id, error: ConnectError.from(error).rawMessage };
    }
  }
}

/** Chunks of an agent's stream, one ahead, so that it is known whether there is a next part. */
class ChunkReader {
  #ahead: Uint8Array | undefined;
  #isDone = false;

  constructor(private readonly messages: AsyncIterator<BackupVolumeResponse>) {}

  /** Whether all was sent, as far as it was looked. */
  get isDone(): boolean {
    return this.#isDone;
  }

  async next(): Promise<Uint8Array | undefined> {
    await this.look();
    const chunk = this.#ahead;
    this.#ahead = undefined;
    return chunk;
  }

  /** @throws ConnectError when the stream ends before its end was told */
  async look(): Promise<void> {
    if (this.#ahead !== undefined || this.#isDone) return;
    const next = await this.messages.next();
    const part = next.done ? undefined : next.value.part;
    if (part?.case === "chunk") this.#ahead = part.value;
    else if (part?.case === "end") this.#isDone = true;
    else throw new ConnectError("the backup broke off", Code.Unavailable);
  }
}
