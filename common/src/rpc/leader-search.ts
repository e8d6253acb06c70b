/** One call's way to the leader: what is asked again, whom next, and for how long. L1 and L3 of leader.ts. */
import { NotLeaderSchema } from "@warren/proto/common";
import { backoff, pause } from "../time.ts";
import type { RpcConnection } from "./client.ts";
import { Code, ConnectError, detailOf, rpcError, wasNeverSent } from "./errors.ts";

/** What became of a call: a follower refused it, nobody was there, or it has its answer, though that is an error. */
export type Verdict = "follower" | "gone" | "answered";

/** The schedulers that are known, and which of them is asked next. */
export interface Peers {
  /**
   * Draws the conclusion of a failure for whoever calls next. Also of a deadline that has passed (for a stream: of an
   * abort with that as its reason): the peer may be hung (L2), and a follower that is asked instead leads back to it.
   */
  note(peer: RpcConnection, error: unknown): Verdict;
  /** Goes to one that is not in `asked`, by URL. @returns whether there is any */
  turnToOther(asked: ReadonlySet<string>): boolean;
  /** How long a call goes on looking for a leader. */
  readonly patienceMs: number;
}

const retry = { baseMs: 25, maxMs: 1_000, random: Math.random };

/** One call's way to the leader: whom it has asked, how long it may go on. */
export class Search {
  readonly #began = performance.now();
  readonly #asked = new Set<string>();
  readonly #said = new Map<string, string>();
  #rounds = 0;
  /** Whether a follower has answered in this round. */
  #hope = false;

  constructor(
    private readonly peers: Peers,
    private readonly deadlineMs: number,
    private readonly idempotent: boolean,
    private readonly signal: AbortSignal | undefined,
  ) {}

  get leftMs(): number {
    return Math.max(1, this.deadlineMs - (performance.now() - this.#began));
  }

  /**
   * Returns when another try is due.
   * @param sent whether the call itself was, not only what preceded it
   * @throws the error, where there is to be none
   */
  async goOn(peer: RpcConnection, error: unknown, sent: boolean): Promise<void> {
    const verdict = this.peers.note(peer, error);
    const follower = detailOf(error, NotLeaderSchema);
    const repeatable = !sent || this.idempotent || (follower ? !follower.begun : wasNeverSent(error));
    if ((sent && verdict === "answered") || !repeatable || this.signal?.aborted) throw error;
    this.#said.set(peer.url, ConnectError.from(error).rawMessage);
    this.#asked.add(peer.url);
    this.#hope ||= follower !== undefined;
    // One that was named and not asked yet, or another of those that are known: at once. A follower that is cut off may
    // go on naming one that is dead.
    if (this.peers.turnToOther(this.#asked)) return;
    if (!this.#hope) throw this.#nobody(error);
    const { patienceMs } = this.peers;
    const wait = backoff({ ...retry, attempt: this.#rounds++ });
    const over = performance.now() - this.#began + wait;
    if (over >= Math.min(this.deadlineMs, patienceMs)) throw this.#nobody(error);
    await pause(wait, this.signal);
    if (this.signal?.aborted) throw error;
    this.#asked.clear();
    this.#hope = false;
  }

  /** With the last one's details, and what each of them said. */
  #nobody(error: unknown): unknown {
    if (this.#said.size < 2) return error;
    const said = [...this.#said].map(([url, message]) =>
      message.includes(url) ? message : `${url}: ${message}`,
    );
    const all = rpcError(Code.Unavailable, `no scheduler leads: ${said.join("; ")}`);
    all.details = ConnectError.from(error).details;
    all.cause = error;
    return all;
  }
}
