/**
 * The agent's end of what a tenant may tell it (`@warren/worker`): a unix socket per instance. Whoever connects is not
 * trusted: connections, bytes, lines and their rate are bounded, and nothing that is sent throws, waits or is kept.
 */

import { Bucket } from "@warren/common/bucket";
import type { Logger } from "@warren/common/log";
import { type Clock, systemClock } from "@warren/common/time";
import type { Socket } from "bun";
import { Door } from "./door.ts";
import { messageOf } from "./files.ts";
import { errorReply, type Message, okReply, parseMessage } from "./messages.ts";

/** What was refused. */
export type Refusal =
  | "malformed"
  /** A line without an end. */
  | "too-long"
  /** More connections at once than it may have. */
  | "too-many"
  /** More messages or connections in a second than it may send. */
  | "too-fast"
  /** A connection that said nothing whole for long. */
  | "idle"
  /** It does not read what it is answered. */
  | "not-reading";

export interface ChannelOptions {
  /** Of the socket, in a directory that the tenant may enter; at most 107 bytes. */
  readonly path: string;
  /** Whose the socket shall be, where the tenant is another user than the agent. Nobody else may connect. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /**
   * The tenant says that it is ready, for the first time. It is acknowledged when this returns, and will not say it again:
   * what the next agent must know has to be on disk by then. When this throws, the tenant tries again.
   */
  onReady(): void;
  onHeartbeat(): void;
  /** For a counter. */
  onRefused?(why: Refusal): void;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly bounds?: Partial<ChannelBounds>;
}

export interface ChannelBounds {
  /** Of a line, its end excluded. */
  readonly lineBytes: number;
  readonly connections: number;
  /** Messages, connections and reads; an exchange of @warren/worker is two. */
  readonly perSecond: number;
  readonly burst: number;
  /** From a connection's begin, or its last whole line, until it is closed, ms. */
  readonly idleMs: number;
  /** For how long nobody can connect after too many did, ms. */
  readonly muteMs: number;
}

const defaults: ChannelBounds = {
  lineBytes: 4_096,
  connections: 8,
  perSecond: 100,
  burst: 200,
  idleMs: 60_000,
  muteMs: 1_000,
};

/** What is logged of one instance: these at once, and one each ten minutes. */
const loggedAtOnce = 3;
const loggedPerSecond = 1 / 600;

const lineFeed = 0x0a;
const nothing = new Uint8Array(0);

interface Peer {
  /** The begin of a line whose end has not come. */
  begun: Uint8Array;
  idle: ReturnType<typeof setTimeout> | undefined;
}

/** Opens it; a socket that a dead agent left is replaced. @throws Error when it cannot be opened */
export function openChannel(options: ChannelOptions): Channel {
  return new Channel(options);
}

export class Channel {
  readonly path: string;
  readonly #options: ChannelOptions;
  readonly #bounds: ChannelBounds;
  readonly #bucket: Bucket;
  readonly #logged: Bucket;
  readonly #peers = new Set<Socket<Peer>>();
  readonly #door: Door<Peer>;
  #saidReady = false;
  #refused = 0;
  #closed = false;

  constructor(options: ChannelOptions) {
    const clock = options.clock ?? systemClock;
    const monotonic = () => clock.monotonic();
    this.path = options.path;
    this.#options = options;
    this.#bounds = { ...defaults, ...options.bounds };
    this.#bucket = new Bucket(this.#bounds.burst, this.#bounds.perSecond, monotonic);
    this.#logged = new Bucket(loggedAtOnce, loggedPerSecond, monotonic);
    this.#door = new Door<Peer>({
      path: this.path,
      owner: options.owner,
      log: options.log,
      socket: {
        open: (socket) => this.#opened(socket),
        data: (socket, bytes) => this.#heard(socket, bytes),
        close: (socket) => this.#forget(socket),
        error: (socket) => socket.terminate(),
      },
    });
  }

  /** Ends all connections and removes the socket. May be called again. */
  close(): void {
    this.#closed = true;
    this.#door.close();
    for (const socket of this.#peers) this.#drop(socket);
  }

  #opened(socket: Socket<Peer>): void {
    socket.data = { begun: nothing, idle: undefined };
    socket.unref();
    if (!this.#bucket.take()) {
      this.#refuse(socket, "too-fast");
      this.#door.shutFor(this.#bounds.muteMs);
    } else if (this.#peers.size >= this.#bounds.connections) {
      this.#refuse(socket, "too-many");
    } else {
      this.#peers.add(socket);
      this.#wait(socket);
    }
  }

  #wait(socket: Socket<Peer>): void {
    clearTimeout(socket.data.idle);
    socket.data.idle = setTimeout(() => this.#refuse(socket, "idle"), this.#bounds.idleMs);
    socket.data.idle.unref();
  }

  #heard(socket: Socket<Peer>, bytes: Uint8Array): void {
    if (!this.#peers.has(socket)) return; // refused; what it had sent still arrives
    let rest = bytes;
    do {
      // For each read and for each line of it: a megabyte of line feeds is as bounded as a megabyte of reads.
      if (!this.#bucket.take()) {
        this.#refuse(socket, "too-fast");
        return;
      }
      const end = rest.indexOf(lineFeed);
      const piece = end < 0 ? rest : rest.subarray(0, end);
      if (socket.data.begun.length + piece.length > this.#bounds.lineBytes) {
        this.#answer(socket, errorReply(`a line has at most ${this.#bounds.lineBytes} bytes`));
        this.#refuse(socket, "too-long");
        return;
      }
      // A copy: Bun uses its buffer again.
      const line = Buffer.concat([socket.data.begun, piece]);
      socket.data.begun = end < 0 ? line : nothing;
      if (end < 0) return;
      this.#wait(socket);
      if (!this.#take(socket, parseMessage(line))) return;
      rest = rest.subarray(end + 1);
    } while (rest.length > 0);
  }

  /** @returns whether to go on with this connection */
  #take(socket: Socket<Peer>, message: Message): boolean {
    if (message.kind === "malformed") {
      this.#count("malformed", message.why);
      return this.#answer(socket, errorReply(message.why));
    }
    try {
      if (message.kind === "heartbeat") this.#options.onHeartbeat();
      else if (!this.#saidReady) this.#options.onReady();
      this.#saidReady ||= message.kind === "ready";
    } catch (error) {
      if (this.#logged.take()) {
        this.#options.log.error({ why: messageOf(error) }, `a worker's ${message.kind} could not be taken`);
      }
      this.#drop(socket);
      return false;
    }
    return this.#answer(socket, okReply);
  }

  /**
   * Bun keeps nothing of what the kernel does not take, and neither does the agent.
   * @returns whether to go on with this connection
   */
  #answer(socket: Socket<Peer>, reply: string): boolean {
    const written = socket.write(reply);
    // Below 0 it has gone already, and does not care for answers: what it said counts all the same.
    if (written >= 0 && written < reply.length) this.#refuse(socket, "not-reading");
    return this.#peers.has(socket);
  }

  #refuse(socket: Socket<Peer>, why: Refusal): void {
    this.#count(why);
    this.#drop(socket);
  }

  #drop(socket: Socket<Peer>): void {
    this.#forget(socket);
    socket.terminate();
  }

  #forget(socket: Socket<Peer>): void {
    clearTimeout(socket.data.idle);
    this.#peers.delete(socket);
  }

  #count(why: Refusal, more?: string): void {
    if (this.#closed) return;
    this.#refused++;
    this.#options.onRefused?.(why);
    if (!this.#logged.take()) return;
    this.#options.log.warn(
      { why: more ?? why, refused: this.#refused },
      "a worker channel refused something",
    );
  }
}
