/** The scheduler's half of the contract, as a test scripts it, on a real port with TLS and roles. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { InstanceMode } from "@warren/proto/common";
import {
  EndpointUpdate,
  type EnsureResponse,
  EnsureResponseSchema,
  SchedulerService,
  type TenantEndpoint,
  TenantEndpointSchema,
  type Touched,
  type TrafficRecord,
  type WatchEndpointsResponse,
  WatchEndpointsResponseSchema,
} from "@warren/proto/scheduler";

type Push = (message: WatchEndpointsResponse) => void;

export class ScriptedScheduler implements AsyncDisposable {
  /** Tenants of the Ensures that came, in order. */
  readonly ensures: string[] = [];
  /** What was touched, in order. */
  readonly touched: Touched[] = [];
  /** Batches of traffic that came, in order, refused ones too. */
  readonly traffic: TrafficRecord[][] = [];
  /** May refuse a batch. */
  onTraffic: (batch: TrafficRecord[]) => void = () => {};
  /** Watches made so far. */
  watches = 0;
  /** What an Ensure answers. */
  onEnsure: (tenant: string, signal: AbortSignal) => Promise<EnsureResponse> = async (tenant) => {
    throw rpcError(Code.NotFound, `no tenant ${tenant}`);
  };
  epoch = 1n;
  /** Where the agent of "n1" answers. */
  agentUrl = "";
  readonly #endpoints = new Map<string, TenantEndpoint>();
  readonly #pushes = new Set<Push>();
  #n = 0n;
  #server: RpcServer | undefined;

  constructor(private readonly credentials: Credentials) {}

  get url(): string {
    return this.#server!.url;
  }

  get watchers(): number {
    return this.#pushes.size;
  }

  async start(port = 0): Promise<void> {
    this.#server = await serveRpc({
      name: "scripted scheduler",
      port,
      credentials: this.credentials,
      log: createLogger({ process: "test", level: "silent" }),
      routes: (router) => {
        router.service(SchedulerService, {
          ensure: (request, context) => {
            this.ensures.push(request.tenant);
            return this.onEnsure(request.tenant, context.signal);
          },
          touch: (request) => {
            this.touched.push(...request.instances);
            return {};
          },
          reportTraffic: ({ records }) => {
            this.traffic.push(records);
            this.onTraffic(records);
            return {};
          },
          watchEndpoints: (_request, context) => this.#watch(context.signal),
        });
      },
    });
  }

  /** As a process that is killed. */
  async stop(): Promise<void> {
    await this.#server?.stop(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  version(): { epoch: bigint; n: bigint } {
    return { epoch: this.epoch, n: ++this.#n };
  }

  /** An endpoint of an instance, without telling anybody. */
  endpoint(tenant: string, port: number, options: { id?: string; mode?: InstanceMode; slot?: number } = {}) {
    const endpoint = create(TenantEndpointSchema, {
      instance: { id: options.id ?? ulid(), tenant, node: "n1", slot: options.slot ?? 0, generation: 1n },
      endpoint: { host: "127.0.0.1", port },
      mode: options.mode ?? InstanceMode.ACTIVE,
      version: this.version(),
    });
    this.#endpoints.set(endpoint.instance!.id, endpoint);
    return endpoint;
  }

  /** The same, told by an INCREMENTAL. */
  publish(...of: Parameters<ScriptedScheduler["endpoint"]>): TenantEndpoint {
    const endpoint = this.endpoint(...of);
    this.push({ update: EndpointUpdate.INCREMENTAL, version: endpoint.version, endpoints: [endpoint] });
    return endpoint;
  }

  withdraw(id: string): void {
    this.#endpoints.delete(id);
    this.push({ update: EndpointUpdate.INCREMENTAL, version: this.version(), withdrawn: [id] });
  }

  push(message: MessageInitShape<typeof WatchEndpointsResponseSchema>): void {
    for (const push of this.#pushes) push(create(WatchEndpointsResponseSchema, message));
  }

  /** The answer to an Ensure that names that endpoint. */
  ready({ instance, endpoint, version }: TenantEndpoint): EnsureResponse {
    return create(EnsureResponseSchema, { instance, endpoint, version, cold: true });
  }

  /** The newest that was told of an instance. */
  lastTouch(id: string): Touched | undefined {
    return this.touched.findLast((touched) => touched.instance === id);
  }

  async *#watch(signal: AbortSignal): AsyncGenerator<WatchEndpointsResponse> {
    this.watches++;
    const queue: WatchEndpointsResponse[] = [];
    let wake = () => {};
    const push: Push = (message) => {
      queue.push(message);
      wake();
    };
    push(
      create(WatchEndpointsResponseSchema, {
        update: EndpointUpdate.COMPLETE,
        node: "n1",
        agentUrl: this.agentUrl,
        version: { epoch: this.epoch, n: this.#n },
        endpoints: [...this.#endpoints.values()],
      }),
    );
    this.#pushes.add(push);
    signal.addEventListener("abort", () => wake(), { once: true });
    try {
      while (!signal.aborted) {
        const message = queue.shift();
        if (message) yield message;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#pushes.delete(push);
    }
  }
}
