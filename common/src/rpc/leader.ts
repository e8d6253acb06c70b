/**
 * Calls to whichever scheduler leads (works under Node 20 and Bun). A scheduler that does not lead names the one that
 * does; one that is gone is known by its silence. What is asked again is only what was certainly not carried out (a
 * follower's answer, a connection that never came about), or what may be carried out twice (idempotent by contract).
 *
 *  L1  A call ends by its deadline, or at once when its signal aborts, whoever leads.
 *  L2  A scheduler that was silent (hung, paused, cut off) is given no call before it has answered a health check: its
 *      followers go on naming it until its lease is over, and each call would hang there until its deadline.
 *  L3  With nobody there at all it fails after each was asked once; it waits on only while a follower answers, since
 *      then a leader is to be expected.
 */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { NotLeaderSchema } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import { type ConnectOptions, connectRpc, type RpcConnection } from "./client.ts";
import { Code, ConnectError, detailOf, rpcError, wasNotAnswered, wasSilent } from "./errors.ts";
import { type Peers, Search, type Verdict } from "./leader-search.ts";
import { rpcLimits } from "./limits.ts";

export interface LeaderOptions extends Omit<ConnectOptions, "url"> {
  /** Schedulers, "https://host:port" each; any one of them suffices to find the others. At least one. */
  readonly urls: readonly string[];
  /** How long a call goes on looking for a leader, ms. Default: until its deadline. */
  readonly patienceMs?: number;
}

/** An {@link RpcConnection} that follows the leader; it opens one connection to each scheduler that it asks. */
export interface LeaderConnection extends RpcConnection {
  /** The one that is asked next. */
  readonly url: string;
  /**
   * Makes a call of one's own wherever the leader is, as often as it takes.
   * @param call makes one try, within so many ms
   * @throws ConnectError of the last try
   */
  follow<T>(call: (peer: RpcConnection, leftMs: number) => Promise<T>, options: FollowOptions): Promise<T>;
}

export interface FollowOptions {
  readonly deadlineMs: number;
  /** Whether it may be carried out twice. */
  readonly idempotent: boolean;
  readonly signal?: AbortSignal;
}

/** Most schedulers that were learned from others' answers; the oldest is forgotten. */
const mostLearned = 8;
/** L2: for the health check. */
const probeMs = 1_000;

/**
 * Opens nothing yet: the first call connects.
 * @throws TypeError when there is no URL, or one is none or is not https
 */
export function connectLeader(options: LeaderOptions): LeaderConnection {
  return new Following(options);
}

class Following implements LeaderConnection, Peers {
  /** As configured, then those that were learned. */
  readonly #peers: RpcConnection[];
  readonly #configured: number;
  /** L2 */
  readonly #silent = new Set<RpcConnection>();
  #current: RpcConnection;

  constructor(private readonly options: LeaderOptions) {
    const urls = [...new Set(options.urls.map((url) => (URL.canParse(url) ? new URL(url).origin : url)))];
    if (urls.length === 0) throw new TypeError("no scheduler's URL was given");
    this.#peers = urls.map((url) => connectRpc({ ...options, url }));
    this.#configured = this.#peers.length;
    this.#current = this.#peers[0]!;
  }

  get url(): string {
    return this.#current.url;
  }

  client<S extends DescService>(service: S): Client<S> {
    const calls = service.methods.map((method) => [method.localName, this.#method(service, method)]);
    return Object.fromEntries(calls) as Client<S>;
  }

  close(): void {
    for (const peer of this.#peers) peer.close();
  }

  async follow<T>(
    call: (peer: RpcConnection, leftMs: number) => Promise<T>,
    { deadlineMs, idempotent, signal }: FollowOptions,
  ): Promise<T> {
    const search = new Search(this, deadlineMs, idempotent, signal);
    for (;;) {
      const peer = this.#current;
      let sent = false;
      try {
        await this.#probe(peer, search.leftMs, signal);
        sent = true;
        return await call(peer, search.leftMs);
      } catch (error) {
        await search.goOn(peer, error, sent);
      }
    }
  }

  get patienceMs(): number {
    return this.options.patienceMs ?? Number.POSITIVE_INFINITY;
  }

  /** From now on another one is asked, if `peer` still is the one. */
  turnFrom(peer: RpcConnection): void {
    if (this.#current !== peer) return;
    this.#current = this.#peers[(this.#peers.indexOf(peer) + 1) % this.#peers.length]!;
  }

  turnToOther(asked: ReadonlySet<string>): boolean {
    if (!asked.has(this.#current.url)) return true;
    const other = this.#peers.find(({ url }) => !asked.has(url));
    if (other) this.#current = other;
    return other !== undefined;
  }

  /** From now on the one at that URL is asked. @returns false where that is no URL of a scheduler */
  learn(url: string): boolean {
    const origin = URL.canParse(url) ? new URL(url).origin : "";
    if (!origin.startsWith("https://")) return false;
    let peer = this.#peers.find((known) => known.url === origin);
    if (!peer) {
      if (this.#peers.length >= this.#configured + mostLearned)
        this.#forget(this.#peers.splice(this.#configured, 1)[0]!);
      peer = connectRpc({ ...this.options, url: origin });
      this.#peers.push(peer);
    }
    this.#current = peer;
    return true;
  }

  #forget(peer: RpcConnection): void {
    this.#silent.delete(peer);
    peer.close();
  }

  /** L2. @throws ConnectError when it is silent still */
  async #probe(peer: RpcConnection, leftMs: number, signal?: AbortSignal): Promise<void> {
    if (!this.#silent.has(peer) || this.#peers.length === 1) return; // without another there is nothing to lose
    try {
      await peer.client(Health).check({}, { timeoutMs: Math.min(probeMs, leftMs), signal });
      this.#silent.delete(peer);
    } catch (error) {
      if (signal?.aborted) throw error;
      const silent = rpcError(
        Code.Unavailable,
        `${peer.url} has been silent, and does not answer a health check`,
      );
      silent.cause = ConnectError.from(error);
      throw silent;
    }
  }

  #method(service: DescService, method: DescMethod): (input: unknown, options?: CallOptions) => unknown {
    type Calls = Record<string, (input: unknown, options: CallOptions) => unknown>;
    const clients = new WeakMap<RpcConnection, Calls>();
    const on = (peer: RpcConnection): Calls[string] => {
      let calls = clients.get(peer);
      if (!calls) {
        calls = peer.client(service) as unknown as Calls;
        clients.set(peer, calls);
      }
      return calls[method.localName]!;
    };
    const idempotent = method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
    const defaultMs = this.options.deadlineMs ?? rpcLimits.defaultTimeoutMs;
    if (method.methodKind === "unary") {
      return (input, options = {}) =>
        this.follow((peer, timeoutMs) => on(peer)(input, { ...options, timeoutMs }) as Promise<unknown>, {
          deadlineMs: options.timeoutMs ?? defaultMs,
          idempotent,
          signal: options.signal,
        });
    }
    if (method.methodKind === "server_streaming")
      return (input, options = {}) => this.#stream(on, input, options);
    // What streams from the caller can be read only once: the caller repeats it (see `follow`).
    return async (input, options = {}) => {
      const peer = this.#current;
      try {
        return await (on(peer)(input, options) as Promise<unknown>);
      } catch (error) {
        this.note(peer, error);
        throw error;
      }
    };
  }

  /** Looks for the leader until the first message has come; what breaks later is the caller's to take up. */
  async *#stream(
    on: (peer: RpcConnection) => (input: unknown, options: CallOptions) => unknown,
    input: unknown,
    options: CallOptions,
  ): AsyncGenerator<unknown> {
    const { signal, timeoutMs = rpcLimits.defaultTimeoutMs } = options;
    const search = new Search(this, timeoutMs, true, signal);
    for (let begun = false; ; ) {
      const peer = this.#current;
      try {
        await this.#probe(peer, search.leftMs, signal);
        for await (const message of on(peer)(input, options) as AsyncIterable<unknown>) {
          begun = true;
          yield message;
        }
        return;
      } catch (error) {
        if (begun || signal?.aborted) {
          this.note(peer, signal?.aborted ? signal.reason : error);
          throw error;
        }
        await search.goOn(peer, error, true);
      }
    }
  }

  note(peer: RpcConnection, error: unknown): Verdict {
    const follower = detailOf(error, NotLeaderSchema);
    if (follower) {
      const { leaderUrl } = follower;
      if (!leaderUrl || leaderUrl === peer.url || !this.learn(leaderUrl)) this.turnFrom(peer);
      return "follower";
    }
    const silent = wasSilent(error);
    if (silent) this.#silent.add(peer);
    const gone = wasNotAnswered(error);
    if (gone || silent) this.turnFrom(peer);
    return gone ? "gone" : "answered";
  }
}

interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}
