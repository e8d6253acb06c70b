/**
 * Bounds what strangers can hold of a server: a connection costs a file descriptor before it has shown any credential,
 * and a process without descriptors can neither serve nor see. A caller that has authenticated once is never cut, however
 * long it is silent.
 */
import { readFileSync } from "node:fs";
import type { Server, Socket } from "node:net";
import { Counter, type Registry } from "prom-client";

const mostConnections = 1_024;

export interface ConnectionBounds {
  /** Connections at once; default 1,024, or half of the descriptors that the process may have, if that is less. */
  readonly most?: number;
  /** From the connect until a call was let in, ms; default 10 s. A health check is one: it needs no credential. */
  readonly firstCallMs?: number;
}

/** By its address and port, since the sockets that requests name are wrapped. */
type Peer = Pick<Socket, "remoteAddress" | "remotePort">;

interface Entry {
  readonly socket: Socket;
  readonly deadline: ReturnType<typeof setTimeout>;
}

export class Connections {
  readonly #all = new Set<Socket>();
  /** Those without a credential so far, the oldest first. */
  readonly #strangers = new Map<string, Entry>();
  readonly #cut: Counter<"why"> | undefined;
  readonly #most: number;
  readonly #firstCallMs: number;

  constructor(server: Server, bounds: ConnectionBounds = {}, metrics?: Registry) {
    this.#most = bounds.most ?? defaultMost();
    this.#firstCallMs = bounds.firstCallMs ?? 10_000;
    this.#cut = metrics && cutCounter(metrics);
    server.on("connection", (socket: Socket) => this.#opened(socket));
  }

  /** A call of it was let in without a credential: its time is not bounded any more, but another may take its place. */
  served(peer: Peer): void {
    clearTimeout(this.#strangers.get(keyOf(peer))?.deadline);
  }

  /** It has shown a credential: it is not cut from here on. */
  trusted(peer: Peer): void {
    this.served(peer);
    this.#strangers.delete(keyOf(peer));
  }

  destroy(): void {
    for (const socket of this.#all) socket.destroy();
  }

  #opened(socket: Socket): void {
    if (this.#all.size >= this.#most) {
      // The oldest stranger makes room: one who is honest needs milliseconds, one who only holds on is the oldest soon.
      const oldest = this.#strangers.entries().next().value;
      if (oldest) this.#cutOff(...oldest, "full");
      else {
        this.#cut?.inc({ why: "full" });
        socket.destroy();
        return;
      }
    }
    const key = keyOf(socket);
    const deadline = setTimeout(() => this.#cutOff(key, entry, "silent"), this.#firstCallMs);
    const entry = { socket, deadline };
    deadline.unref();
    this.#all.add(socket);
    this.#strangers.set(key, entry);
    socket.on("close", () => this.#forget(key, entry));
  }

  #cutOff(key: string, entry: Entry, why: "full" | "silent"): void {
    this.#cut?.inc({ why });
    this.#forget(key, entry); // now: its close comes later, and more may open before
    entry.socket.destroy();
  }

  #forget(key: string, entry: Entry): void {
    clearTimeout(entry.deadline);
    this.#all.delete(entry.socket);
    if (this.#strangers.get(key) === entry) this.#strangers.delete(key);
  }
}

function defaultMost(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1];
    return Math.min(mostConnections, Math.floor(Number(soft ?? mostConnections * 2) / 2));
  } catch {
    return mostConnections; // no procfs here (macOS)
  }
}

function keyOf({ remoteAddress, remotePort }: Peer): string {
  return `${remoteAddress} ${remotePort}`;
}

/** One registry may serve several servers of a process. */
function cutCounter(registry: Registry): Counter<"why"> {
  const name = "warren_rpc_connections_cut_total";
  const existing = registry.getSingleMetric(name) as Counter<"why"> | undefined;
  return (
    existing ??
    new Counter({
      name,
      help: "Connections cut before they showed a credential: too many at once (full), or no call in time (silent).",
      labelNames: ["why"],
      registers: [registry],
    })
  );
}
