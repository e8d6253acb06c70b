/** Connections to the agents of nodes, for the one thing that a gateway asks of them: to thaw an instance. */
import { connectRpc, type RpcConnection } from "@warren/common/rpc/client";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, isRpcCode } from "@warren/common/rpc/errors";
import { AgentService } from "@warren/proto/agent";
import { Health } from "@warren/proto/grpc";
import type { Thaw } from "./rouser.ts";
import type { Route } from "./route.ts";

export interface AgentsOptions {
  readonly credentials: Credentials;
  /** Where a node's agent answers; undefined while nobody has said so. */
  readonly urlOf: (node: string) => string | undefined;
  /** Deadline of one thaw. */
  readonly deadlineMs: number;
}

/** Beyond so many, connections are opened when they are needed. */
const mostPrepared = 1_000;

export class Agents {
  readonly #connections = new Map<string, { readonly url: string; readonly connection: RpcConnection }>();

  constructor(private readonly options: AgentsOptions) {}

  /** Opens the connection before it is needed: the first one costs more than all of the waking. */
  prepare(node: string): void {
    const url = this.options.urlOf(node);
    if (!url || this.#connections.get(node)?.url === url || this.#connections.size >= mostPrepared) return;
    const { deadlineMs } = this.options;
    this.#connection(node, url)
      .client(Health)
      .check({}, { timeoutMs: deadlineMs })
      .catch(() => {}); // the thaw will tell
  }

  async thaw({ node, id }: Pick<Route, "node" | "id">): Promise<Thaw> {
    const url = this.options.urlOf(node);
    if (!url) return "unreachable";
    try {
      await this.#connection(node, url)
        .client(AgentService)
        .thawInstance({ instance: id }, { timeoutMs: this.options.deadlineMs });
      return "thawed";
    } catch (error) {
      if (isRpcCode(error, Code.NotFound)) return "gone";
      return isRpcCode(error, Code.ResourceExhausted) ? "full" : "unreachable";
    }
  }

  /** One per node: a node whose agent moved has its old connection closed. */
  #connection(node: string, url: string): RpcConnection {
    const known = this.#connections.get(node);
    if (known?.url === url) return known.connection;
    known?.connection.close();
    const connection = connectRpc({ url, credentials: this.options.credentials });
    this.#connections.set(node, { url, connection });
    return connection;
  }

  close(): void {
    for (const { connection } of this.#connections.values()) connection.close();
    this.#connections.clear();
  }
}
