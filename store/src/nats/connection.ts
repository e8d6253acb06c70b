import { readFileSync } from "node:fs";
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstreamManager,
} from "@nats-io/jetstream";
import {
  type ConnectionOptions,
  connect,
  credsAuthenticator,
  errors,
  type NatsConnection,
} from "@nats-io/transport-node";
import { pause } from "@warren/common/time";
import { StoreInputError, StoreMismatchError, StoreUnavailableError } from "../errors.ts";
import { LIMITS } from "../limits.ts";
import { Notifier } from "../notifier.ts";
import { Deadline } from "../time.ts";

/** How to reach NATS. Credentials come from at most one of: the URL, `token`, `user` and `pass`, `credentialsFile`. */
export interface NatsConnectOptions {
  /** `nats://host:port` or `tls://host:port`; several of one cluster separated by commas. */
  readonly url: string;
  readonly token?: string;
  readonly user?: string;
  readonly pass?: string;
  /** Path of a `.creds` file. */
  readonly credentialsFile?: string;
  /** Paths of PEM files; presence turns TLS on. */
  readonly tls?: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string };
  /** Milliseconds within which opening succeeds or fails. Default 5000. */
  readonly openDeadlineMs?: number;
  /** Shown in NATS's own monitoring. Default "warren". */
  readonly name?: string;
}

/** Longest that one request waits for its answer before it is sent again, in milliseconds. */
export const REQUEST_MS = 2000;

/** Room that a message needs beyond its largest value: headers, subject. */
const MESSAGE_OVERHEAD_BYTES = 64 * 1024;

/** One connection with JetStream on it, which reconnects for ever and says when it is away. */
export class NatsLink implements AsyncDisposable {
  /** Changes at every loss and return of the connection. */
  readonly changes = new Notifier();
  #connected = true;
  #generation = 0;

  private constructor(
    readonly nc: NatsConnection,
    readonly jsm: JetStreamManager,
    readonly js: JetStreamClient,
    /** For messages: without credentials. */
    readonly url: string,
  ) {
    void this.#watch();
  }

  /**
   * @throws StoreUnavailableError when there is no NATS with JetStream there by the deadline, or it refuses us
   * @throws StoreMismatchError when it takes too small messages
   */
  static async open(options: NatsConnectOptions): Promise<NatsLink> {
    const { servers, auth, shown, tls } = parseUrls(options.url);
    const deadline = new Deadline(options.openDeadlineMs ?? 5000);
    const connectOptions: ConnectionOptions = {
      ...auth,
      ...(options.token !== undefined && { token: options.token }),
      ...(options.user !== undefined && { user: options.user, pass: options.pass }),
      ...(options.credentialsFile !== undefined && {
        authenticator: credsAuthenticator(readFileSync(options.credentialsFile)),
      }),
      ...((tls || options.tls !== undefined) && { tls: { ...options.tls } }),
      servers,
      name: options.name ?? "warren",
      // A stopped server is noticed after 2 s × 3; by default it would take six minutes.
      pingInterval: 2000,
      maxPingOut: 2,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
      reconnectJitter: 150,
      reconnectJitterTLS: 300,
      // Else two refusals in a row, say while the server's own accounts load, would close the connection for ever.
      ignoreAuthErrorAbort: true,
    };
    const nc = await dial(connectOptions, deadline, shown);
    try {
      const jsm = await whenJetStreamAnswers(nc, deadline, shown);
      checkMaxPayload(nc, shown);
      return new NatsLink(nc, jsm, jsm.jetstream(), shown);
    } catch (error) {
      await nc.close();
      throw error;
    }
  }

  get connected(): boolean {
    return this.#connected && !this.nc.isClosed();
  }

  /** Rises at every loss of the connection: whatever was in flight then is lost, or its answer is. */
  get generation(): number {
    return this.#generation;
  }

  /** Resolves when connected, or when the signal aborts. */
  async whenConnected(signal: AbortSignal): Promise<void> {
    while (!this.connected && !signal.aborted && !this.nc.isClosed()) {
      await this.changes.after(this.changes.version, signal);
    }
  }

  /** Resolves when the connection of `generation` is gone, or when the signal aborts. */
  async whenLost(generation: number, signal: AbortSignal): Promise<void> {
    while (this.connected && this.#generation === generation && !signal.aborted) {
      await this.changes.after(this.changes.version, signal);
    }
  }

  /**
   * Runs a request, and fails as soon as the connection is gone: the client library would wait for an answer that
   * cannot come until its timeout. What the request did is unknown then.
   */
  async guard<T>(request: () => Promise<T>): Promise<T> {
    // What is published while disconnected is lost without a word.
    if (!this.connected) throw new Error("not connected");
    const settled = new AbortController();
    const lost = this.whenLost(this.#generation, settled.signal).then(() => {
      throw new Error("the connection was lost");
    });
    try {
      return await Promise.race([request(), lost]);
    } finally {
      settled.abort();
      lost.catch(() => {}); // ended by us
    }
  }

  async close(): Promise<void> {
    await this.nc.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #watch(): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === "disconnect") {
        this.#connected = false;
        this.#generation++;
        this.changes.notify();
      } else if (status.type === "reconnect") {
        this.#connected = true;
        this.changes.notify();
      }
    }
    this.#connected = false;
    this.changes.notify();
  }
}

/** What a failure of NATS means to our caller. */
export function unavailable(link: NatsLink, doing: string, cause: unknown): StoreUnavailableError {
  const why = link.connected ? messageOf(cause) : "not connected, reconnecting";
  return new StoreUnavailableError(`NATS at ${link.url}: ${doing} failed: ${why}`, { cause });
}

export function apiCode(error: unknown): number | undefined {
  return error instanceof JetStreamApiError ? error.code : undefined;
}

function messageOf(error: unknown): string {
  if (error === undefined) return "no answer in time";
  return error instanceof Error ? error.message : String(error);
}

function parseUrls(url: string): {
  servers: string[];
  auth: { user?: string; pass?: string; token?: string };
  shown: string;
  tls: boolean;
} {
  const servers: string[] = [];
  const shown: string[] = [];
  let auth: { user?: string; pass?: string; token?: string } = {};
  let tls = false;
  for (const [index, part] of url.split(",").entries()) {
    const text = part.trim();
    const parsed = URL.parse(text.includes("://") ? text : `nats://${text}`);
    if (
      parsed === null ||
      (parsed.protocol !== "nats:" && parsed.protocol !== "tls:") ||
      parsed.hostname === ""
    ) {
      // Not shown: what does not parse may still hold a password.
      throw new StoreInputError(
        `the NATS URL (number ${index + 1}) is not nats://host:port or tls://host:port`,
      );
    }
    const host = `${parsed.hostname}:${parsed.port || "4222"}`;
    servers.push(host);
    shown.push(`${parsed.protocol}//${host}`);
    tls ||= parsed.protocol === "tls:";
    if (parsed.username !== "") {
      const user = decodeURIComponent(parsed.username);
      auth = parsed.password === "" ? { token: user } : { user, pass: decodeURIComponent(parsed.password) };
    }
  }
  return { servers, auth, shown: shown.join(","), tls };
}

async function dial(options: ConnectionOptions, deadline: Deadline, shown: string): Promise<NatsConnection> {
  for (;;) {
    try {
      return await connect({ ...options, timeout: Math.max(1, Math.min(REQUEST_MS, deadline.left)) });
    } catch (cause) {
      if (
        cause instanceof errors.AuthorizationError ||
        cause instanceof errors.UserAuthenticationExpiredError
      ) {
        throw new StoreUnavailableError(
          `NATS at ${shown} refuses our credentials: correct the token, user or .creds file`,
          {
            cause,
          },
        );
      }
      if (deadline.left <= 50) {
        throw new StoreUnavailableError(
          `cannot reach NATS at ${shown} within ${deadline.ms} ms (${messageOf(cause)}): ` +
            "start nats-server with JetStream (-js), or correct the URL",
          { cause },
        );
      }
    }
    await pause(Math.min(100, deadline.left));
  }
}

/** A server that has just started accepts connections a little before its JetStream answers. */
async function whenJetStreamAnswers(
  nc: NatsConnection,
  deadline: Deadline,
  shown: string,
): Promise<JetStreamManager> {
  for (;;) {
    try {
      return await jetstreamManager(nc, { timeout: Math.max(1, Math.min(REQUEST_MS, deadline.left)) });
    } catch (cause) {
      if (deadline.left <= 50) {
        throw new StoreUnavailableError(
          `NATS at ${shown} answers, its JetStream does not within ${deadline.ms} ms (${messageOf(cause)}): ` +
            "start nats-server with -js, and allow JetStream for this account",
          { cause },
        );
      }
    }
    await pause(Math.min(100, deadline.left));
  }
}

function checkMaxPayload(nc: NatsConnection, shown: string): void {
  const needed = LIMITS.stateValueBytes + MESSAGE_OVERHEAD_BYTES;
  const max = nc.info?.max_payload ?? 0;
  if (max >= needed) return;
  throw new StoreMismatchError(
    `NATS at ${shown} has max_payload ${max}; at least ${needed} is needed (its default is 1 MiB)`,
  );
}
