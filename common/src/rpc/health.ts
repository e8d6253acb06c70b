/** grpc.health.v1 as a Connect service; the npm packages for it read .proto files at run time, which a binary has not. */
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@warren/proto/grpc";
import { rpcError } from "./errors.ts";

/** Whether this process serves, and the services it has. */
export class HealthState {
  #serving = true;
  readonly #away = new Set<string>();
  readonly #listeners = new Set<() => void>();

  constructor(readonly services: ReadonlySet<string>) {}

  get serving(): boolean {
    return this.#serving;
  }

  set serving(value: boolean) {
    this.#serving = value;
    for (const listener of this.#listeners) listener();
  }

  /** Whether one service answers here now, or only elsewhere; the process's own status stays what it is. */
  setService(service: string, serving: boolean): void {
    if (serving) this.#away.delete(service);
    else this.#away.add(service);
    for (const listener of this.#listeners) listener();
  }

  /** The status of one service, or of the process for "". */
  status(service: string): Status | undefined {
    if (service !== "" && !this.services.has(service)) return undefined;
    return this.#serving && !this.#away.has(service) ? Status.SERVING : Status.NOT_SERVING;
  }

  /** Resolves at the next change or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#listeners.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#listeners.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}

export function healthRoutes(router: ConnectRouter, state: HealthState): void {
  router.service(Health, {
    check(request) {
      const status = state.status(request.service);
      if (status === undefined) throw rpcError(Code.NotFound, `no service ${request.service} here`);
      return { status };
    },
    async *watch(request, context) {
      while (!context.signal.aborted) {
        const change = state.changed(context.signal);
        yield { status: state.status(request.service) ?? Status.SERVICE_UNKNOWN };
        await change;
      }
    },
  });
}
