/**
 * TCP ports for tenants. The agent claims a *block* of its range by listening on the block's first port: the kernel
 * lets go of it when the agent dies, however it dies, and another agent on this host with the same range finds it
 * taken and claims another block. So no two agents ever hand out the same port, without a file between them.
 * Allocate-and-release, the usual way, collided in 2 of 3 runs of 300 starts.
 */
import { Code, rpcError } from "@warren/common/rpc/errors";
import { AgentStartError } from "./errors.ts";

/** First and last port of the range, both included. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

const blockSize = 256;

interface Listener {
  stop(closeActiveConnections?: boolean): void;
}

interface Block {
  readonly base: number;
  readonly end: number; // exclusive
  readonly claim: Listener;
}

export class Ports implements Disposable {
  readonly #blocks: Block[] = [];
  /** Who has it: an instance's id, or the key of the tenant whose instances share it. */
  readonly #held = new Map<number, string>();
  readonly #shared = new Map<string, { readonly port: number; readonly ids: Set<string> }>();
  #next: number;

  private constructor(
    private readonly range: PortRange,
    /** Where in a block the search begins: not at the same port after each restart of the agent. */
    start: number,
    private readonly survivors: () => Iterable<number>,
  ) {
    this.#next = start;
  }

  /**
   * @param before ports held by instances that an agent before this one left: their blocks are claimed first
   * @param survivors ports that processes of a dead agent may still go by, looked for when a block is claimed
   * @throws AgentStartError when every block of the range is another agent's
   */
  static open(
    range: PortRange,
    before: readonly number[] = [],
    survivors: () => Iterable<number> = () => [],
    start = Math.floor(Math.random() * blockSize),
  ): Ports {
    if (!(range.from >= 1 && range.to <= 65_535 && range.to > range.from)) {
      throw new AgentStartError(
        `the tenant ports ${range.from}-${range.to} are no range: give two or more ports from 1 to 65535`,
      );
    }
    const ports = new Ports(range, start, survivors);
    const bases = new Set(
      before.filter((port) => port >= range.from && port <= range.to).map((port) => ports.#baseOf(port)),
    );
    for (const base of bases) ports.#claimAt(base);
    if (ports.#blocks.length === 0 && !ports.#claim()) {
      throw new AgentStartError(
        `no block of the tenant ports ${range.from}-${range.to} is free: other agents on this host have them all; ` +
          "give this agent a range of its own",
      );
    }
    return ports;
  }

  /**
   * Notes a port that an adopted instance has, wherever it is.
   * @param sharedBy the tenant, if its instances share it
   */
  adopt(port: number, id: string, sharedBy?: string): void {
    this.#held.set(port, sharedBy ?? id);
    if (sharedBy === undefined) return;
    const shared = this.#shared.get(sharedBy);
    if (shared) shared.ids.add(id);
    else this.#shared.set(sharedBy, { port, ids: new Set([id]) });
  }

  /**
   * The one port of a tenant whose instances share it; held until the last of them has released it.
   * @throws ConnectError RESOURCE_EXHAUSTED when there is none
   */
  takeShared(tenant: string, id: string): number {
    const shared = this.#shared.get(tenant);
    if (shared) {
      shared.ids.add(id);
      return shared.port;
    }
    const port = this.take(tenant);
    this.#shared.set(tenant, { port, ids: new Set([id]) });
    return port;
  }

  /**
   * A port that nobody listens on, held for the instance until {@link release}.
   * @throws ConnectError RESOURCE_EXHAUSTED when there is none
   */
  take(id: string): number {
    for (;;) {
      const size = this.#blocks.reduce((sum, block) => sum + block.end - block.base - 1, 0);
      for (let tried = 0; tried < size; tried++) {
        const port = this.#at(this.#next++ % size);
        if (this.#held.has(port) || !isFree(port)) continue;
        this.#held.set(port, id);
        return port;
      }
      if (!this.#claim()) break;
    }
    throw rpcError(
      Code.ResourceExhausted,
      `no free tenant port: ${this.#held.size} of this agent's are held, and no other block of ${this.range.from}-${this.range.to} is free`,
    );
  }

  /** Only once nothing of the instance is left that could listen on it. */
  release(port: number, id: string): void {
    const holder = this.#held.get(port);
    if (holder === id) this.#held.delete(port);
    const shared = holder === undefined ? undefined : this.#shared.get(holder);
    if (!shared?.ids.delete(id) || shared.ids.size > 0) return;
    this.#shared.delete(holder!);
    this.#held.delete(port);
  }

  [Symbol.dispose](): void {
    for (const block of this.#blocks) block.claim.stop(true);
    this.#blocks.length = 0;
  }

  #at(index: number): number {
    let rest = index;
    for (const block of this.#blocks) {
      const usable = block.end - block.base - 1;
      if (rest < usable) return block.base + 1 + rest;
      rest -= usable;
    }
    throw new RangeError(`no port number ${index}`);
  }

  #baseOf(port: number): number {
    return this.range.from + Math.floor((port - this.range.from) / blockSize) * blockSize;
  }

  #claim(): boolean {
    for (let base = this.range.from; base < this.range.to; base += blockSize) {
      if (this.#claimAt(base)) return true;
    }
    return false;
  }

  #claimAt(base: number): boolean {
    if (this.#blocks.some((block) => block.base === base)) return false;
    const claim = tryListen(base, "127.0.0.1");
    if (!claim) return false;
    const end = Math.min(base + blockSize, this.range.to + 1);
    this.#blocks.push({ base, end, claim });
    // From now on none but this agent hands out these; an agent that died may have, to tenants that live on.
    for (const port of this.survivors()) {
      if (port > base && port < end && !this.#held.has(port)) this.#held.set(port, "another agent's tenant");
    }
    return true;
  }
}

const hasIpv6 = (() => {
  const trial = tryListen(0, "::");
  trial?.stop(true);
  return trial !== undefined;
})();

/** Whether nobody listens on it, on any address: a tenant that ignores HOST may bind them all. */
export function isFree(port: number): boolean {
  return (hasIpv6 ? ["0.0.0.0", "::"] : ["0.0.0.0"]).every((hostname) => {
    const listener = tryListen(port, hostname);
    listener?.stop(true);
    return listener !== undefined;
  });
}

function tryListen(port: number, hostname: string): Listener | undefined {
  try {
    return Bun.listen({ hostname, port, exclusive: true, socket: { data() {} } });
  } catch {
    return undefined; // taken, or not ours to take: either way the next one is tried
  }
}
