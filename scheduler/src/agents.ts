/** Connections to agents, and the two commands the core gives. */
import type { RpcConnection } from "@warren/common/rpc/client";
import { connectRpc } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
import { toDuration } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { StaleEpochSchema } from "@warren/proto/common";
import type { Effect } from "./core/effects.ts";
import type { Input, StartOutcome } from "./core/inputs.ts";

/** Beyond the grace: killing and verifying. */
const stopSlackMs = 20_000;

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
  readonly #onStale: (error: Error) => void;

  constructor(options: {
    credentials: Credentials;
    epoch: bigint;
    /** Ends all commands under way. */
    signal: AbortSignal;
    /** An agent has seen a newer epoch: command nothing any more. */
    onStale: (error: Error) => void;
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
    agentUrl,
    incarnation,
    timeoutMs,
  }: Extract<Effect, { type: "start" }>): Promise<StartOutcome> {
    try {
      const { instance } = await this.connection(agentUrl)
        .client(AgentService)
        .startInstance(
          { epoch: this.#epoch, incarnation, instance: ref, spec },
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

  async stop({ ref, reason, graceMs, agentUrl }: Extract<Effect, { type: "stop" }>): Promise<Input> {
    try {
      const { instance } = await this.connection(agentUrl)
        .client(AgentService)
        .stopInstance(
          { epoch: this.#epoch, instance: ref.id, reason, grace: toDuration(graceMs) },
          { timeoutMs: graceMs + stopSlackMs, signal: this.#signal },
        );
      return { type: "stopped", instance: ref.id, gone: instance };
    } catch (error) {
      this.#watchEpoch(error);
      return { type: "stopped", instance: ref.id, error: ConnectError.from(error).rawMessage };
    }
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
      );
    }
  }
}
