/** HTTP in, tenant out, by `Bun.serve` and `fetch`: streams both ways, and buffers nothing of its own. */

import { ulid } from "@warren/common/ids";
import type { Logger } from "@warren/common/log";
import type { Server } from "bun";
import { type Address, named } from "./address.ts";
import { meteredBody, untouchedBody } from "./body.ts";
import { type Dispatch, NotTakenError } from "./dispatch.ts";
import { type Client, requestHeaders, responseHeaders } from "./headers.ts";
import type { Lease } from "./lease.ts";
import type { GatewayMetrics } from "./metrics.ts";
import { type Origin, originOf } from "./origin.ts";
import type { Passage } from "./passage.ts";
import { answer, type Refusal, RefusedError, refusalOf } from "./refusal.ts";
import { authority } from "./route.ts";
import type { TrustedProxies } from "./trusted.ts";
import { LeftError } from "./wakes.ts";
import { type Bridge, isUpgrade, type SocketData } from "./websocket.ts";

export interface ProxyOptions {
  readonly domain: string;
  readonly trusted: TrustedProxies;
  readonly answerDeadlineMs: number;
  readonly idleConnectionMs: number;
  readonly dispatch: Dispatch;
  readonly bridge: Bridge;
  readonly metrics: GatewayMetrics;
  readonly log: Logger;
}

/** Requests that may be given to a tenant twice, when they have no body. */
const safe = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
/** Nothing was sent: there was no connection. */
const unsent = new Set([
  "ECONNREFUSED",
  "ConnectionRefused",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "FailedToOpenSocket",
]);

/** Whether fetch failed before a byte of the request went out. */
function neverSent(error: unknown): boolean {
  return unsent.has(String((error as NodeJS.ErrnoException).code));
}

export class TenantProxy {
  #draining = false;

  constructor(private readonly options: ProxyOptions) {}

  /** From now on, requests on connections that are still open are refused. */
  drain(): void {
    this.#draining = true;
  }

  /** @returns undefined when the request became a WebSocket */
  async handle(request: Request, server: Server<SocketData>): Promise<Response | undefined> {
    const { metrics, domain } = this.options;
    // Streams may be quiet for as long as they like; the server's own timeout is for connections that ask nothing.
    server.timeout(request, 0);
    const origin = this.#originOf(request, server);
    const { address, host } = named(request.headers.get("host") ?? "", origin, targetOf(request.url), domain);
    const response = await this.#answer(request, server, address, { origin, host });
    metrics.answered(response?.status ?? 101);
    if (response && !response.body) this.#rest(request, server);
    return response;
  }

  async #answer(
    request: Request,
    server: Server<SocketData>,
    address: Address,
    client: Pick<Client, "origin" | "host">,
  ): Promise<Response | undefined> {
    if (address.kind === "refused") {
      const { status, message, tenant } = address;
      return this.#refuse(
        { status, error: status === 400 ? "bad-tenant" : "no-tenant-named", message },
        tenant,
        request,
        server,
      );
    }
    if (this.#draining) {
      return this.#refuse(stopping, address.tenant, request, server);
    }
    const passage: Passage = {
      request,
      server,
      tenant: address.tenant,
      target: address.target,
      upgrade: isUpgrade(request),
      client: { ...client, prefix: address.prefix },
    };
    try {
      const { dispatch, bridge } = this.options;
      return await dispatch.to(address.tenant, request.signal, (lease) =>
        passage.upgrade
          ? bridge.open(passage, lease, () => this.#send(passage, lease))
          : this.#send(passage, lease),
      );
    } catch (error) {
      // Nobody reads it; Bun wants an answer all the same.
      if (error instanceof LeftError || request.signal.aborted) return new Response(null, { status: 499 });
      const refusal = refusalOf(error, address.tenant);
      if (!(error instanceof RefusedError)) {
        this.options.log.debug({ err: error, tenant: address.tenant, status: refusal.status }, "refused");
      }
      return this.#refuse(refusal, address.tenant, request, server);
    }
  }

  #originOf(request: Request, server: Server<SocketData>): Origin {
    const peer = server.requestIP(request)?.address ?? "unknown";
    const host = request.headers.get("host") ?? "";
    return originOf({ peer, host, header: (name) => request.headers.get(name) }, this.options.trusted);
  }

  #refuse(refusal: Refusal, tenant: string, request: Request, server: Server<SocketData>): Response {
    this.options.metrics.refused(refusal.error);
    this.#rest(request, server);
    return answer(refusal, tenant, ulid(), request.method === "HEAD");
  }

  /** Gives the request to the instance and the beginning of its answer to the client. */
  async #send(passage: Passage, lease: Lease): Promise<Response> {
    const { request, tenant, target, client } = passage;
    const repeatable = safe.has(request.method) && request.body === null;
    const abort = new AbortController();
    const left = () => abort.abort(new LeftError("the client went away"));
    if (request.signal.aborted) left();
    else request.signal.addEventListener("abort", left, { once: true });
    lease.signal.addEventListener("abort", () => abort.abort(lease.signal.reason), { once: true });
    const late = setTimeout(
      () => abort.abort(new RefusedError(noAnswer(tenant))),
      this.options.answerDeadlineMs,
    );
    const body = request.body ? untouchedBody(request.body) : undefined;
    const headers = requestHeaders(request.headers, client);
    if (passage.upgrade) {
      // The tenant refused to upgrade; it is asked once more, in the same words, for its own answer.
      headers.set("Connection", "Upgrade");
      headers.set("Upgrade", "websocket");
    }
    const fetched = (keepalive: boolean): Promise<Response> => {
      const init: BunFetchRequestInit & { decompress: boolean; keepalive: boolean; timeout: boolean } = {
        method: request.method,
        headers,
        body: body?.stream ?? null,
        redirect: "manual",
        decompress: false,
        keepalive,
        timeout: false, // fetch's own 5 minutes would cut quiet streams
        signal: abort.signal,
      };
      return fetch(`http://${authority(lease.route)}${target}`, init);
    };
    const { doubted } = lease.route;
    const mayHavePool = lease.route.pooled && !doubted;
    let response: Response;
    let sent = false;
    try {
      // A pooled connection may have been closed at the other end: harmless only for what may be sent twice (D3).
      response = await fetched(repeatable && !doubted).catch((error: unknown) => {
        // When a pooled connection breaks, Bun connects anew by itself: "refused" may then hide that it was sent.
        sent = !neverSent(error) || (repeatable && mayHavePool);
        if (!repeatable || neverSent(error) || abort.signal.aborted) throw error;
        // Once more of the same instance, on a connection of its own. Never of the next one: a request that is the
        // death of one instance would be the death of them all.
        return fetched(false);
      });
    } catch (error) {
      if (abort.signal.aborted) {
        // Whoever waited for its answer had asked; one that could not be thawed did not hear of it.
        if (!lease.signal.aborted) lease.reached();
        throw abort.signal.reason;
      }
      if (sent) lease.reached();
      const again = !sent && neverSent(error) && !body?.touched();
      if (again) body?.giveBack();
      throw new NotTakenError(again, (error as Error).message);
    } finally {
      clearTimeout(late);
    }
    lease.reached();
    if (repeatable) lease.answered();
    return this.#pass(response, passage, lease, abort);
  }

  /** The answer is complete: from now on the connection may be idle for so long, and no longer. */
  #rest(request: Request, server: Server<SocketData>): void {
    server.timeout(request, idleSeconds(this.options.idleConnectionMs));
  }

  #pass(response: Response, { request, server }: Passage, lease: Lease, abort: AbortController): Response {
    // Bun may never begin to read a body whose client is gone by now.
    abort.signal.addEventListener("abort", () => lease.end(), { once: true });
    if (abort.signal.aborted) lease.end();
    const headers = responseHeaders(response.headers);
    const { status, statusText } = response;
    if (status === 101) {
      const error = new RefusedError(changedItsMind);
      abort.abort(error);
      throw error;
    }
    const bare = request.method === "HEAD" || status === 204 || status === 304 || !response.body;
    if (bare) {
      response.body?.cancel().catch(() => {});
      lease.end();
      return new Response(null, { status, statusText, headers });
    }
    const length = response.headers.get("content-length");
    const stream = meteredBody(response.body!, {
      length: length === null ? undefined : Number(length),
      onBytes: (bytes) => lease.sent(bytes),
      onEnd: () => {
        lease.end();
        this.#rest(request, server);
      },
      onLeft: () => abort.abort(new LeftError("the client went away")),
    });
    return new Response(stream, { status, statusText, headers });
  }
}

const changedItsMind: Refusal = {
  status: 502,
  error: "bad-upgrade",
  message: "the tenant first refused the WebSocket and then took it",
};

const stopping: Refusal = {
  status: 503,
  error: "gateway-stopping",
  message: "this gateway is being stopped",
  retryAfter: 1,
};

function noAnswer(tenant: string): Refusal {
  return { status: 504, error: "no-answer-in-time", message: `"${tenant}" did not answer in time` };
}

/** As `Bun.serve` counts: whole seconds, at most 255. */
export function idleSeconds(ms: number): number {
  return Math.min(255, Math.max(1, Math.ceil(ms / 1000)));
}

/** Path and query of an absolute URL, without the fragment that some clients send. */
function targetOf(url: string): string {
  const path = url.indexOf("/", url.indexOf("//") + 2);
  if (path < 0) return "/";
  const fragment = url.indexOf("#", path);
  return fragment < 0 ? url.slice(path) : url.slice(path, fragment);
}
