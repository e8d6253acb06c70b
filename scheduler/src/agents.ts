/** Connections to agents, and the commands the core gives. */
import type { RpcConnection } from "@warren/common/rpc/client";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
import { toDuration } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { StaleEpochSchema, ThawedSinceSchema } from "@warren/proto/common";
import type { Effect } from "./core/effects.ts";
import type { Input, SleepOutcome, StartOutcome } from "./core/inputs.ts";

/** Beyond the grace: killing and verifying. */
const stopSlackMs = 20_000;

/** A freeze walks a process tree, a page-out its memory. */
const sleepMs = 20_000;
const thawMs = 5_000;

/** Codes that say that nothing was started, and that no other node would do better. */
const refusals = [
  Code.InvalidArgument,
  Code.FailedPrecondition,
  Code.NotFound,
  Code.Unimplemented,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Internal,
];

export class Agents {
  readonly #connections = new Map<string, RpcConnection>();
  readonly #credentials: Credentials;
  readonly #epoch: bigint;
  readonly #signal: AbortSignal;
  readonly #onStale: (error: Error, seen: bigint) => void;

  constructor(options: {
    credentials: Credentials;
    epoch: bigint;
    /** Ends all commands under way. */
    signal: AbortSignal;
    /** An agent has seen a newer epoch: command nothing any more. */
    onStale: (error: Error, seen: bigint) => void;
  }) {
    this.#credentials = options.credentials;
    this.#epoch = options.epoch;
    this.#signal = options.signal;
    this.#onStale = options.onStale;
  }

  connection(url: string): RpcConnection {
    let connection = this.#connections.get(url);
    if (!connection) {
      connection = connectRpc({ url, credentials: this.#credentials });
      this.#connections.set(url, connection);
    }
    return connection;
  }

  async start(effect: Extract<Effect, { type: "start" }>): Promise<Input> {
    const outcome = await this.#start(effect);
    return { type: "started", instance: effect.ref.id, outcome };
  }

  async #start({
    ref,
    spec,
    volumes,
    agentUrl,
    incarnation,
    hostName,
    timeoutMs,
  }: Extract<Effect, { type: "start" }>): Promise<StartOutcome> {
    try {
      const { instance } = await this.connection(agentUrl)
        .client(AgentService)
        .startInstance(
          {
            epoch: this.#epoch,
            incarnation,
            instance: ref,
            spec,
            hostName,
            volumes: volumes.map(({ name, id, mustExist, restore }) => ({
              name,
              id,
              // What was brought back a moment ago must be there, too.
              mustExist: mustExist || restore !== undefined,
            })),
          },
          { timeoutMs, signal: this.#signal },
        );
      return instance
        ? { kind: "answered", instance }
        : { kind: "unknown", message: "the agent answered nothing" };
    } catch (error) {
      const { rawMessage: message } = ConnectError.from(error);
      this.#watchEpoch(error);
      if (isRpcCode(error, Code.ResourceExhausted, Code.Aborted))
        return { kind: "refused", message, elsewhere: true };
      if (isRpcCode(error, ...refusals)) return { kind: "refused", message, elsewhere: false };
      return { kind: "unknown", message };
    }
  }

  /**
   * Gets a release onto a node.
   * @throws ConnectError when it did not come within `timeoutMs`
   */
  async fetch(agentUrl: string, digest: string, timeoutMs: number): Promise<void> {
    try {
      await this.connection(agentUrl)
        .client(AgentService)
        .fetchRelease({ epoch: this.#epoch, digest }, { timeoutMs, signal: this.#signal });
    } catch (error) {
      this.#watchEpoch(error);
      throw error;
    }
  }

  async stop({ ref, reason, graceMs, ifWakes, agentUrl }: Extract<Effect, { type: "stop" }>): Promise<Input> {
    try {
      const { instance } = await this.connection(agentUrl)
        .client(AgentService)
        .stopInstance(
          { epoch: this.#epoch, instance: ref.id, reason, grace: toDuration(graceMs), ifWakes },
          { timeoutMs: graceMs + stopSlackMs, signal: this.#signal },
        );
      return { type: "stopped", instance: ref.id, gone: instance };
    } catch (error) {
      this.#watchEpoch(error);
      const thawed = detailOf(error, ThawedSinceSchema)?.wakes;
      return { type: "stopped", instance: ref.id, error: ConnectError.from(error).rawMessage, thawed };
    }
  }

  async freeze({
    ref,
    ifWakes,
    pageOut,
    command,
    agentUrl,
  }: Extract<Effect, { type: "freeze" }>): Promise<Input> {
    const outcome = await this.#slept(async () => {
      const { instance } = await this.connection(agentUrl)
        .client(AgentService)
        .freezeInstance(
          { epoch: this.#epoch, instance: ref.id, ifWakes, pageOut },
          { timeoutMs: sleepMs, signal: this.#signal },
        );
      return instance?.wakes;
    });
    return { type: "slept", instance: ref.id, command, outcome };
  }

  async thaw({ ref, command, agentUrl }: Extract<Effect, { type: "thaw" }>): Promise<Input> {
    const outcome = await this.#slept(async () => {
      const { wakes } = await this.connection(agentUrl)
        .client(AgentService)
        .thawInstance({ instance: ref.id }, { timeoutMs: thawMs, signal: this.#signal });
      return wakes;
    });
    return { type: "slept", instance: ref.id, command, outcome };
  }

  async #slept(run: () => Promise<bigint | undefined>): Promise<SleepOutcome> {
    try {
      return { kind: "done", wakes: await run() };
    } catch (error) {
      this.#watchEpoch(error);
      const thawed = detailOf(error, ThawedSinceSchema);
      if (thawed) return { kind: "thawed", wakes: thawed.wakes };
      const { rawMessage: message } = ConnectError.from(error);
      if (isRpcCode(error, Code.NotFound)) return { kind: "gone" };
      if (isRpcCode(error, Code.ResourceExhausted)) return { kind: "full", message };
      return { kind: isRpcCode(error, ...refusals) ? "failed" : "unknown", message };
    }
  }

  /** Connections that there are. */
  get size(): number {
    return this.#connections.size;
  }

  /** Closes connections to agents that are in no roster any more. */
  keepOnly(urls: ReadonlySet<string>): void {
    for (const [url, connection] of this.#connections) {
      if (urls.has(url)) continue;
      connection.close();
      this.#connections.delete(url);
    }
  }

  close(): void {
    this.keepOnly(new Set());
  }

  #watchEpoch(error: unknown): void {
    const stale = detailOf(error, StaleEpochSchema);
    if (stale && stale.current > this.#epoch) {
      this.#onStale(
        new Error(`an agent has seen epoch ${stale.current}, this scheduler holds ${this.#epoch}`),
        stale.current,
      );
    }
  }
}
