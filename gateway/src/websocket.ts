/**
 * WebSockets: one to the tenant, opened first, and one to the client. A slow reader on either side pauses the other,
 * so that what waits in between has a bound (rule 9); a WebSocket is in flight until it is closed (rule 3).
 */
import type { ServerWebSocket, WebSocketHandler } from "bun";
import { NotTakenError } from "./dispatch.ts";
import { requestHeaders } from "./headers.ts";
import type { Lease } from "./lease.ts";
import type { Passage } from "./passage.ts";
import { RefusedError } from "./refusal.ts";
import { authority } from "./route.ts";
import { LeftError } from "./wakes.ts";

/** Bun's client socket can be paused; the DOM's type does not know. */
interface TenantSocket extends WebSocket {
  pause(): void;
  resume(): void;
  readonly isPaused: boolean;
  terminate(): void;
}

/** Bun's constructor takes options; the DOM's type does not know. */
const dial = (url: string, options: { headers: Record<string, string>; perMessageDeflate: boolean }) =>
  new (WebSocket as unknown as new (url: string, options: object) => TenantSocket)(url, options);

export interface SocketData {
  readonly tenant: TenantSocket;
  readonly lease: Lease;
  /** Looks from time to time whether a slow tenant has caught up. */
  timer: ReturnType<typeof setInterval> | undefined;
}

export interface BridgeOptions {
  readonly maxMessageBytes: number;
  readonly socketBufferBytes: number;
  /** From the handshake until the tenant's answer. */
  readonly answerDeadlineMs: number;
}

/** Said by the connection itself: hop by hop, though they look end to end. */
const handshake = [
  "sec-websocket-key",
  "sec-websocket-version",
  "sec-websocket-extensions",
  "sec-websocket-accept",
];

export function isUpgrade(request: Request): boolean {
  return request.method === "GET" && request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

export class Bridge {
  readonly #open = new Set<ServerWebSocket<SocketData>>();
  constructor(private readonly options: BridgeOptions) {}

  /** WebSockets open now. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * Opens the tenant's side, then the client's.
   * @param plain asks the tenant without an upgrade: it refused one, and its own answer is to reach the client
   */
  async open(passage: Passage, lease: Lease, plain: () => Promise<Response>): Promise<Response | undefined> {
    const tenant = await this.#dial(passage, lease);
    if (!tenant) return plain();
    lease.reached();
    const { request, server } = passage;
    const data: SocketData = { tenant, lease, timer: undefined };
    const headers = tenant.protocol ? { "Sec-WebSocket-Protocol": tenant.protocol } : undefined;
    if (!request.signal.aborted && server.upgrade(request, { data, headers })) return undefined;
    tenant.terminate();
    if (request.signal.aborted) throw new LeftError("the client went away");
    throw new RefusedError({
      status: 400,
      error: "bad-upgrade",
      message: "the WebSocket handshake is not valid",
    });
  }

  /** Tells every client that the gateway goes away. */
  closeAll(): void {
    for (const client of this.#open) client.close(1001, "the gateway is being stopped");
  }

  /** @returns undefined when the tenant answered something else than 101 */
  #dial({ request, tenant, target, client }: Passage, lease: Lease): Promise<TenantSocket | undefined> {
    const headers = requestHeaders(request.headers, client);
    for (const name of handshake) headers.delete(name);
    const { promise, resolve, reject } = Promise.withResolvers<TenantSocket | undefined>();
    const socket = dial(`ws://${authority(lease.route)}${target}`, {
      headers: Object.fromEntries(headers),
      perMessageDeflate: false,
    });
    socket.binaryType = "arraybuffer";
    const left = () => {
      socket.terminate();
      reject(new LeftError("the client went away"));
    };
    const late = setTimeout(() => {
      socket.terminate();
      const message = `"${tenant}" did not answer the WebSocket handshake in time`;
      reject(new RefusedError({ status: 504, error: "no-answer-in-time", message }));
    }, this.options.answerDeadlineMs);
    request.signal.addEventListener("abort", left, { once: true });
    const cut = () => {
      socket.terminate();
      reject(lease.signal.reason as Error);
    };
    lease.signal.addEventListener("abort", cut, { once: true });
    socket.onopen = () => {
      socket.pause(); // until the client's side is open
      resolve(socket);
    };
    socket.onerror = (event) => {
      const { message } = event as ErrorEvent;
      if (/101/.test(message)) resolve(undefined);
      // A handshake does nothing twice: it may go to another instance.
      else reject(new NotTakenError(true, message));
    };
    socket.onclose = () => reject(new NotTakenError(true, "closed during the handshake"));
    return promise.finally(() => {
      clearTimeout(late);
      request.signal.removeEventListener("abort", left);
      lease.signal.removeEventListener("abort", cut);
      socket.onopen = null;
      socket.onerror = null;
      socket.onclose = null;
    });
  }

  /** Bun's side of it, for the clients. */
  get handler(): WebSocketHandler<SocketData> {
    const { socketBufferBytes, maxMessageBytes } = this.options;
    return {
      maxPayloadLength: maxMessageBytes,
      // Above it the client is cut; the tenant is paused long before, but one message may be as large as it may be.
      backpressureLimit: socketBufferBytes + maxMessageBytes,
      closeOnBackpressureLimit: true,
      // A client that is gone without a word is found by the pings that Bun sends before this many seconds are over.
      idleTimeout: 120,
      sendPings: true,
      perMessageDeflate: false,
      open: (client) => this.#opened(client),
      message: (client, message) => this.#fromClient(client, message),
      drain: (client) => {
        if (client.getBufferedAmount() <= socketBufferBytes / 2) client.data.tenant.resume();
      },
      close: (client, code, reason) => this.#closed(client, code, reason),
    };
  }

  #opened(client: ServerWebSocket<SocketData>): void {
    this.#open.add(client);
    const { tenant, lease } = client.data;
    tenant.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      lease.sent(typeof data === "string" ? Buffer.byteLength(data) : data.byteLength);
      client.send(data);
      if (client.getBufferedAmount() > this.options.socketBufferBytes) tenant.pause();
    };
    tenant.onclose = ({ code, reason }) => {
      if (code === 1005) client.close();
      else if (code === 1006 || code === 1015) client.terminate();
      else client.close(code, reason);
    };
    if (tenant.readyState === WebSocket.OPEN) tenant.resume();
    else client.terminate(); // gone before the client was there
  }

  #fromClient(client: ServerWebSocket<SocketData>, message: string | Buffer<ArrayBuffer>): void {
    const { tenant } = client.data;
    tenant.send(message);
    if (tenant.bufferedAmount <= this.options.socketBufferBytes || client.data.timer) return;
    // A slow tenant: the client waits. Its socket tells nobody when it has drained, so look.
    client.pause();
    client.data.timer = setInterval(() => {
      if (tenant.bufferedAmount > this.options.socketBufferBytes / 2) return;
      clearInterval(client.data.timer);
      client.data.timer = undefined;
      client.resume();
    }, 5);
  }

  #closed(client: ServerWebSocket<SocketData>, code: number, reason: string): void {
    this.#open.delete(client);
    const { tenant, lease, timer } = client.data;
    clearInterval(timer);
    tenant.onmessage = null;
    tenant.onclose = null;
    if (code === 1006 || code === 1015) tenant.terminate();
    else if (code === 1005) tenant.close();
    else tenant.close(code, reason);
    lease.end();
  }
}
