/**
 * The one way to build a Warren server: a TLS port that speaks gRPC, gRPC-Web and Connect over HTTP/2 and HTTP/1.1,
 * with authentication, validation, health, reflection and /metrics. `Bun.serve` sends no trailers, so this stands on
 * node:http2. Each cure stands with the trap it is for; the measurements are in docs/architecture.md.
 */

import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { AddressInfo, Server } from "node:net";
import type { TLSSocket } from "node:tls";
import type { DescService } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createValidateInterceptor } from "@connectrpc/validate";
import { Health, reflectionV1 } from "@warren/proto/grpc";
import type { Registry } from "prom-client";
import type { Logger } from "../log.ts";
import { pause } from "../time.ts";
import { tokenVerifier } from "../tls/tokens.ts";
import { authenticate, authInterceptor, type PeerCertificate, peerKey, principalKey } from "./auth.ts";
import { type ConnectionBounds, Connections } from "./connections.ts";
import { type Credentials, LiveCredentials } from "./credentials.ts";
import { withPlainGrpcMessage } from "./grpc-message.ts";
import { HealthState, healthRoutes } from "./health.ts";
import { rpcLimits } from "./limits.ts";
import { reflectionRoutes } from "./reflection.ts";
import { roleOf } from "./roles.ts";
import { serverSpans } from "./spans.ts";
import { tlsPort } from "./tls-port.ts";

export interface ServeOptions {
  /** What it is, for messages: "scheduler". */
  readonly name: string;
  /** Address to listen on; default 127.0.0.1. */
  readonly host?: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly credentials: Credentials;
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Logger;
  /** Served at /metrics to any caller with a credential. */
  readonly metrics?: Registry;
  readonly connections?: ConnectionBounds;
}

/** Notes that a call of the connection was let in. */
const letInKey = createContextKey<((isKnown: boolean) => void) | undefined>(undefined);

export interface RpcServer extends AsyncDisposable {
  readonly port: number;
  /** "https://host:port" */
  readonly url: string;
  readonly health: HealthState;
  /** New calls are refused, running ones finish; after the grace (default 5 s) what is left is cut. */
  stop(graceMs?: number): Promise<void>;
}

/** A server could not be started; the message names the cause and the remedy. */
export class ServeError extends Error {
  override readonly name = "ServeError";
}

/**
 * @throws ServeError when the port is taken, the address is not ours, or the credentials are not a server's
 */
export async function serveRpc(options: ServeOptions): Promise<RpcServer> {
  const { credentials, log, name } = options;
  const host = options.host ?? "127.0.0.1";
  if (!credentials.cert || !credentials.key) {
    throw new ServeError(`the ${name} needs a certificate and its key (tls.crt, tls.key) to serve`);
  }
  const verify = tokenVerifier(credentials.tokenKey);
  const services = servicesOf(options.routes);
  const health = new HealthState(new Set([...services, Health].map((s) => s.typeName)));
  const rpc = connectNodeAdapter({
    routes(router) {
      options.routes(router);
      healthRoutes(router, health);
      reflectionRoutes(router, [...services, Health, reflectionV1.ServerReflection]);
    },
    interceptors: [
      unexpected(log),
      authInterceptor(verify),
      letIn,
      serverSpans(),
      createValidateInterceptor(),
    ],
    acceptCompression: [],
    // JSON is written by people and scripts: a misspelt limit must not be a tenant without limits.
    jsonOptions: { ignoreUnknownFields: false },
    readMaxBytes: rpcLimits.messageBytes,
    writeMaxBytes: rpcLimits.messageBytes,
    maxTimeoutMs: rpcLimits.maxTimeoutMs,
    contextValues: ({ socket }) =>
      createContextValues()
        .set(peerKey, peerOf(socket as TLSSocket))
        .set(letInKey, (isKnown) => (isKnown ? connections.trusted(socket) : connections.served(socket))),
    fallback: (request, response) => {
      if (options.metrics && request.url === "/metrics" && request.method === "GET") {
        void serveMetrics(
          request as Http2ServerRequest,
          response as Http2ServerResponse,
          options.metrics,
          verify,
          () => connections.trusted(request.socket),
        );
        return;
      }
      response.writeHead(404, { "content-type": "text/plain" });
      response.end(`the ${name} speaks gRPC, gRPC-Web and Connect here; no such path\n`);
    },
  });

  const identity = () => ({ ca: credentials.ca, cert: credentials.cert, key: credentials.key });
  const server = createSecureServer(
    {
      ...identity(),
      minVersion: "TLSv1.3",
      requestCert: true,
      // A foreign certificate is refused by the auth interceptor, with a sentence instead of a reset.
      rejectUnauthorized: false,
      allowHTTP1: true,
      maxSessionMemory: rpcLimits.sessionMemoryMb,
      streamResetBurst: rpcLimits.resetBurst,
      streamResetRate: rpcLimits.resetRate,
    },
    (request, response) => {
      // connect-node waits for `drain` for ever when the client leaves under back-pressure.
      response.on("close", () => {
        if (!response.writableFinished) response.emit("drain");
      });
      withPlainGrpcMessage(response);
      rpc(request, response);
    },
  );
  const port = tlsPort(server, () => urlOf(port, host));
  const connections = new Connections(port, options.connections, options.metrics);
  const sessions = track(server);
  // Connections that are open keep what they were made with.
  if (credentials instanceof LiveCredentials)
    credentials.onRenewed(() => server.setSecureContext({ ...identity(), minVersion: "TLSv1.3" }));
  server.on("error", (error) => log.error({ err: error }, `the ${name}'s server failed`));
  server.on("sessionError", (error) => log.debug({ err: error }, "a session failed"));
  port.on("error", (error) => log.error({ err: error }, `the ${name}'s port failed`));
  await listen(port, host, options.port, name);

  let stopping: Promise<void> | undefined;
  const stop = (graceMs = 5_000): Promise<void> => {
    stopping ??= close(port, sessions, connections, health, graceMs);
    return stopping;
  };
  return {
    port: (port.address() as AddressInfo).port,
    url: urlOf(port, host),
    health,
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}

/** By which this machine reaches it. */
function urlOf(server: Server, host: string): string {
  const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  const { port } = server.address() as AddressInfo;
  return `https://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
}

function servicesOf(routes: (router: ConnectRouter) => void): DescService[] {
  const router = createConnectRouter();
  routes(router);
  return [...new Set(router.handlers.map((handler) => handler.service))];
}

function listen(server: Server, host: string, port: number, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => {
      const why: Record<string, string> = {
        EADDRINUSE: `port ${port} on ${host} is taken by another process: stop it, or give the ${name} another port (0 takes any free one)`,
        EACCES: `port ${port} on ${host} needs a privilege: take one above 1023`,
        EADDRNOTAVAIL: `${host} is not an address of this machine`,
      };
      reject(
        new ServeError(
          why[error.code ?? ""] ?? `the ${name} cannot listen on ${host}:${port}: ${error.message}`,
        ),
      );
    };
    server.once("error", failed);
    server.listen(port, host, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

function track(server: Http2SecureServer): Set<ServerHttp2Session> {
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  return sessions;
}

/** `session.close` sends GOAWAY and lets streams finish; sessions that stay open are destroyed after the grace. */
async function close(
  server: Server,
  sessions: ReadonlySet<ServerHttp2Session>,
  connections: Connections,
  health: HealthState,
  graceMs: number,
): Promise<void> {
  health.serving = false;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  for (const session of sessions) session.close();
  const grace = new AbortController();
  await Promise.race([closed, pause(graceMs, grace.signal)]);
  grace.abort();
  for (const session of sessions) session.destroy();
  connections.destroy();
  // Bun's close callback may wait for sockets that are gone already; a moment is enough.
  await Promise.race([closed, pause(100)]);
}

/** CN and OU of the caller's certificate, if it showed one. */
function peerOf(socket: TLSSocket): PeerCertificate | undefined {
  const certificate = socket.getPeerCertificate?.();
  if (!certificate?.subject) return undefined;
  return {
    role: roleOf(String(certificate.subject.OU ?? "")),
    name: String(certificate.subject.CN ?? ""),
    trusted: socket.authorized === true,
    raw: certificate.raw,
  };
}

async function serveMetrics(
  request: Http2ServerRequest,
  response: Http2ServerResponse,
  metrics: Registry,
  verify: ReturnType<typeof tokenVerifier>,
  trusted: () => void,
): Promise<void> {
  try {
    await authenticate(request.headers.authorization ?? null, peerOf(request.socket as TLSSocket), verify);
    trusted();
    const text = await metrics.metrics();
    response.writeHead(200, { "content-type": metrics.contentType });
    response.end(text);
  } catch (error) {
    response.writeHead(error instanceof ConnectError && error.code === Code.Unauthenticated ? 401 : 500);
    response.end(`${ConnectError.from(error).rawMessage}\n`);
  }
}

/** Behind authentication. */
const letIn: Interceptor = (next) => (request) => {
  const { contextValues } = request;
  contextValues.get(letInKey)?.(contextValues.get(principalKey) !== undefined);
  return next(request);
};

/** Errors that no handler meant are logged whole and answered without their inside. */
function unexpected(log: Logger): Interceptor {
  return (next) => async (request) => {
    try {
      return await next(request);
    } catch (error) {
      if (error instanceof ConnectError) throw error;
      if (request.signal.aborted) throw ConnectError.from(error);
      log.error(
        { err: error, method: `${request.service.typeName}/${request.method.name}` },
        "a handler failed",
      );
      throw new ConnectError(
        "internal error; see the server's log",
        Code.Internal,
        undefined,
        undefined,
        error,
      );
    }
  };
}
