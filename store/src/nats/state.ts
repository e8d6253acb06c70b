import { createHash } from "node:crypto";
import { JetStreamApiCodes, type StoredMsg } from "@nats-io/jetstream";
import { headers } from "@nats-io/transport-node";
import { pause } from "@warren/common/time";
import { StaleWriterError, StoreInputError } from "../errors.ts";
import { checkDeadline, checkStateAppend, DEFAULT_DEADLINE_MS, LIMITS, SEAL_KEY } from "../limits.ts";
import type { StateLog, StateSnapshot } from "../store.ts";
import { Backoff, Deadline } from "../time.ts";
import { apiCode, type NatsLink, REQUEST_MS, unavailable } from "./connection.ts";
import { OrderedPull } from "./ordered-pull.ts";
import type { Delivery } from "./pull.ts";
import { MSG_ID } from "./records.ts";
import { sealEpoch } from "./seal.ts";
import { STATE_PREFIX, STATE_STREAM } from "./streams.ts";

/** Marks a removed key. */
const TOMBSTONE = "Warren-Tombstone";
/** Tombstones that wait to be removed, at most; the rest is found again at the next load. */
const MAX_TOMBSTONES = 10_000;
/** Tombstones removed behind one append; a load waits for no more than these. */
const CLEAR_AT_ONCE = 64;
const LOAD_BATCH = 64;

/** The server's "maximum messages exceeded". */
const STREAM_STORE_FAILED = 10077;

/** The state log as a stream that keeps the last message of each key. */
export class NatsState implements StateLog {
  /** Goes into every message id: an equal append by somebody else must not pass for ours. */
  readonly #writer = crypto.randomUUID();
  /** Sequences of tombstones that a later append has made useless. */
  readonly #tombstones = new Set<number>();
  /** Pending while tombstones are being removed. */
  #clearing: Promise<void> | undefined;

  constructor(readonly link: NatsLink) {}

  async load(options: { deadlineMs?: number } = {}): Promise<StateSnapshot> {
    const deadline = new Deadline(checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS));
    const backoff = new Backoff(20, 250);
    // A message that is deleted under a consumer stays in its count of pending ones, and a pull for it hangs (2.9.10).
    await this.#clearing;
    for (;;) {
      try {
        const reading = new SnapshotReading(this.link);
        const signal = AbortSignal.timeout(Math.ceil(deadline.left));
        const snapshot = await this.link.guard(() => reading.run(signal));
        if (snapshot !== undefined) {
          for (const seq of reading.tombstones.values()) this.#remember(seq);
          return snapshot;
        }
        if (deadline.passed) throw new Error("time ran out");
      } catch (cause) {
        if (deadline.left <= 20)
          throw unavailable(this.link, `loading the state within ${deadline.ms} ms`, cause);
      }
      await pause(Math.min(backoff.next(), deadline.left));
    }
  }

  async append(
    key: string,
    value: Uint8Array | null,
    expectedLastSeq: bigint,
    options: { deadlineMs?: number } = {},
  ): Promise<bigint> {
    checkStateAppend(key, value, expectedLastSeq);
    const deadline = new Deadline(checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS));
    const id = this.#idOf(key, value, expectedLastSeq);
    const backoff = new Backoff(20, 250);
    let failure: unknown;
    while (!deadline.passed) {
      try {
        const seq = await this.link.guard(() => this.#appendOnce(key, value, expectedLastSeq, id, deadline));
        this.#appended(seq, value === null);
        return BigInt(seq);
      } catch (error) {
        if (error instanceof StaleWriterError || error instanceof StoreInputError) throw error;
        failure = error;
      }
      await pause(Math.min(backoff.next(), deadline.left));
    }
    throw unavailable(this.link, `appending ${key} to the state within ${deadline.ms} ms`, failure);
  }

  /**
   * Publishes with an id that follows from the arguments. The server looks at the id first, so a repetition within its
   * window is answered with the sequence that the first one got; after that window the id on the key's last message tells.
   */
  async #appendOnce(
    key: string,
    value: Uint8Array | null,
    expectedLastSeq: bigint,
    id: string,
    deadline: Deadline,
  ): Promise<number> {
    const subject = STATE_PREFIX + key;
    const hdrs = headers();
    if (value === null) hdrs.set(TOMBSTONE, "1");
    try {
      const ack = await this.link.js.publish(subject, value ?? new Uint8Array(), {
        msgID: id,
        headers: hdrs,
        expect: { streamName: STATE_STREAM, lastSequence: Number(expectedLastSeq) },
        timeout: Math.max(1, Math.min(REQUEST_MS, deadline.left)),
      });
      return ack.seq;
    } catch (error) {
      if (apiCode(error) === STREAM_STORE_FAILED) {
        throw new StoreInputError(
          `the state log takes no more keys than ${LIMITS.stateKeys}: ${(error as Error).message}`,
        );
      }
      if (apiCode(error) !== JetStreamApiCodes.StreamWrongLastSequence) throw error;
      const last = await this.#lastOf(subject);
      if (last?.header.get(MSG_ID) === id) return last.seq;
      throw new StaleWriterError(expectedLastSeq, actualLastSeq(error));
    }
  }

  async #lastOf(subject: string): Promise<StoredMsg | null> {
    try {
      return await this.link.jsm.streams.getMessage(STATE_STREAM, { last_by_subj: subject });
    } catch (error) {
      if (apiCode(error) === JetStreamApiCodes.NoMessageFound) return null;
      throw error;
    }
  }

  #idOf(key: string, value: Uint8Array | null, expectedLastSeq: bigint): string {
    const hash = createHash("sha256").update(`${key}\n${expectedLastSeq}\n${value === null ? "-" : "+"}\n`);
    return `${this.#writer}:${hash.update(value ?? new Uint8Array()).digest("base64url")}`;
  }

  #appended(seq: number, tombstone: boolean): void {
    this.#clearing ??= this.#clearTombstones(seq).finally(() => {
      this.#clearing = undefined;
    });
    if (tombstone) this.#remember(seq);
  }

  #remember(seq: number): void {
    if (this.#tombstones.size < MAX_TOMBSTONES) this.#tombstones.add(seq);
  }

  /**
   * Removes tombstones that a newer append has followed. Never the stream's last message: by it the server finds the last
   * sequence again after a crash, and by it we recognise an append whose answer got lost. By sequence, not by
   * subject, so that a value which the key has got since is safe.
   */
  async #clearTombstones(before: number): Promise<void> {
    let removed = 0;
    try {
      for (const seq of this.#tombstones) {
        if (seq >= before) continue;
        if (removed++ === CLEAR_AT_ONCE) break;
        await this.#deleteMessage(seq);
        this.#tombstones.delete(seq);
      }
    } catch {
      // Away or closed: they stay remembered, and the next append or load comes back to them.
    }
  }

  async #deleteMessage(seq: number): Promise<void> {
    try {
      await this.link.guard(() => this.link.jsm.streams.deleteMessage(STATE_STREAM, seq, false));
    } catch (error) {
      if (apiCode(error) === undefined) throw error; // else it is gone already: the key was set anew
    }
  }
}

/** One pass over the stream. */
class SnapshotReading {
  readonly entries = new Map<string, Uint8Array>();
  readonly tombstones = new Map<string, number>();
  #epoch = 0n;

  constructor(readonly link: NatsLink) {}

  /**
   * Reads until nothing is left, and again if somebody has appended meanwhile: a value that was replaced behind
   * our back is missing until its replacement is read.
   * @returns undefined when the signal aborts first
   */
  async run(signal: AbortSignal): Promise<StateSnapshot | undefined> {
    const pull = new OrderedPull(this.link, { stream: STATE_STREAM, after: 0, batch: LOAD_BATCH });
    try {
      let lastSeq = await this.#lastSeq();
      while (!signal.aborted) {
        const deliveries = await pull.next(signal, false);
        for (const delivery of deliveries) this.#take(delivery);
        if (pull.pending > 0) continue;
        const now = await this.#lastSeq();
        if (now === lastSeq && deliveries.length === 0) {
          return { entries: this.entries, lastSeq: BigInt(lastSeq), epoch: this.#epoch };
        }
        lastSeq = now;
      }
      return undefined;
    } finally {
      await pull.close();
    }
  }

  #take({ msg, seq }: Delivery): void {
    const key = msg.subject.slice(STATE_PREFIX.length);
    if (key === SEAL_KEY) {
      this.#epoch = sealEpoch(msg.data);
    } else if (msg.headers?.has(TOMBSTONE)) {
      this.entries.delete(key);
      this.tombstones.set(key, seq);
    } else {
      this.entries.set(key, msg.data);
      this.tombstones.delete(key);
    }
  }

  async #lastSeq(): Promise<number> {
    return (await this.link.jsm.streams.info(STATE_STREAM)).state.last_seq;
  }
}

/** "wrong last sequence: 7" names it. */
export function actualLastSeq(error: unknown): bigint | undefined {
  const digits = /wrong last sequence: (\d+)/.exec((error as Error).message)?.[1];
  return digits === undefined ? undefined : BigInt(digits);
}
