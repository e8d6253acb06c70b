/**
 * The one way to call a Warren server (works under Node 20 and Bun). Each cure stands with the trap it is for; the
 * measurements are in docs/architecture.md.
 */

import type { DescService } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { backoff, pause } from "../time.ts";
import type { Credentials } from "./credentials.ts";
import { fromTransport } from "./errors.ts";
import { rpcLimits } from "./limits.ts";
import { Sessions } from "./sessions.ts";
import { clientSpans } from "./spans.ts";

export interface ConnectOptions {
  /** "https://host:port" */
  readonly url: string;
  readonly credentials: Credentials;
  /** Deadline of calls that set none; default 30 s. Does not bind server streams, which live until aborted. */
  readonly deadlineMs?: number;
  /** Default "connect"; "grpc" for servers that speak only that. */
  readonly protocol?: "connect" | "grpc";
  /** Of one's own, around ours: they see each call once, and answers as the caller does. */
  readonly interceptors?: readonly Interceptor[];
}

/** One HTTP/2 connection, made when it is first needed and again whenever it was lost. */
export interface RpcConnection {
  readonly url: string;
  client<S extends DescService>(service: S): Client<S>;
  /** Ends the connection and every call on it. */
  close(): void;
}

/**
 * Opens nothing yet: the first call connects.
 * @throws TypeError when the URL is none or is not https
 */
export function connectRpc(options: ConnectOptions): RpcConnection {
  const url = new URL(options.url);
  if (url.protocol !== "https:") {
    throw new TypeError(`${options.url}: Warren speaks only TLS; the URL must begin with https://`);
  }
  const { credentials } = options;
  const session = new Sessions(
    url.origin,
    {
      pingIntervalMs: rpcLimits.pingIntervalMs,
      pingTimeoutMs: rpcLimits.pingTimeoutMs,
      // Without it a server that was stopped (not closed) is found only by the next call's deadline.
      pingIdleConnection: true,
      idleConnectionTimeoutMs: 15 * 60_000,
    },
    {
      ca: credentials.ca,
      // Asked for at each connect: it may have been renewed.
      get cert() {
        return credentials.cert;
      },
      key: credentials.key,
      maxSessionMemory: rpcLimits.sessionMemoryMb,
      minVersion: "TLSv1.3",
    },
  );
  const shared = {
    baseUrl: url.origin,
    httpVersion: "2" as const,
    sessionManager: session,
    interceptors: [
      ...(options.interceptors ?? []),
      clientSpans(),
      cures(url.origin),
      ...(credentials.token ? [bearer(credentials.token)] : []),
    ],
    // Compression costs 30–60 % on a LAN.
    acceptCompression: [],
    readMaxBytes: rpcLimits.messageBytes,
    writeMaxBytes: rpcLimits.messageBytes,
  };
  const transport =
    options.protocol === "grpc"
      ? createGrpcTransport(shared)
      : createConnectTransport({ ...shared, useBinaryFormat: true });
  return {
    url: url.origin,
    client: (service) => withDefaultDeadline(createClient(service, transport), service, options.deadlineMs),
    close: () => session.abort(new ConnectError("the connection was closed by its owner", Code.Canceled)),
  };
}

/** Unary and client-stream calls without a deadline get one; server streams live until their signal aborts. */
function withDefaultDeadline<S extends DescService>(
  client: Client<S>,
  service: S,
  deadlineMs: number = rpcLimits.defaultTimeoutMs,
): Client<S> {
  const wrapped: Record<string, unknown> = {};
  for (const method of service.methods) {
    const call = (client as Record<string, (input: unknown, options?: object) => unknown>)[method.localName]!;
    const bounded = method.methodKind === "unary" || method.methodKind === "client_streaming";
    wrapped[method.localName] = (input: unknown, options: { timeoutMs?: number } = {}) => {
      const timeoutMs = options.timeoutMs ?? (bounded ? deadlineMs : undefined);
      // The protocol counts whole ms, and a server refuses the call for any other number.
      return call(input, {
        ...options,
        timeoutMs: timeoutMs === undefined ? undefined : Math.ceil(timeoutMs),
      });
    };
  }
  return wrapped as Client<S>;
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("Authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** Real error codes, and one more try for idempotent calls that met a dying connection. */
function cures(url: string): Interceptor {
  return (next) => async (request) => {
    const retries =
      !request.stream && request.method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN
        ? 1
        : 0;
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await next(request);
        if (!response.stream) return response;
        return { ...response, message: mapped(response.message, url, request.signal) };
      } catch (error) {
        const e = fromTransport(error, url, request.signal.aborted);
        const dying = e.code === Code.Unavailable && e !== error;
        if (!dying || attempt >= retries || request.signal.aborted) throw e;
        await pause(backoff({ baseMs: 20, maxMs: 40, attempt: 0, random: Math.random }), request.signal);
      }
    }
  };
}

async function* mapped<T>(messages: AsyncIterable<T>, url: string, signal: AbortSignal): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw fromTransport(error, url, signal.aborted);
  }
}

/**
 * Iterates a server stream and cancels the call however the loop ends: `break` alone does not.
 * @param call makes the call with the signal it is given
 */
export async function* streaming<T>(
  call: (signal: AbortSignal) => AsyncIterable<T>,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const own = new AbortController();
  const combined = signal ? AbortSignal.any([signal, own.signal]) : own.signal;
  try {
    yield* call(combined);
  } finally {
    own.abort(new ConnectError("the caller has read enough", Code.Canceled));
  }
}
