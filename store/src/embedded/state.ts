import type { Database } from "bun:sqlite";
import { StaleWriterError, StoreInputError, StoreUnavailableError } from "../errors.ts";
import { checkDeadline, checkStateAppend, DEFAULT_DEADLINE_MS, LIMITS } from "../limits.ts";
import type { StateLog, StateSnapshot } from "../store.ts";
import { nextTurn } from "../time.ts";

interface StateRow {
  value: Uint8Array | null;
  seq: number;
  prev: number;
}

/** The state log as one table. Every append is one synced transaction, so its outcome is always known. */
export class EmbeddedState implements StateLog {
  #keys: number;

  constructor(readonly db: Database) {
    this.#keys = db.query<{ n: number }, []>("SELECT count(*) AS n FROM state").get()?.n ?? 0;
  }

  async load(options: { deadlineMs?: number } = {}): Promise<StateSnapshot> {
    checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS);
    return this.#guarded("read", () =>
      this.db.transaction(() => {
        const rows = this.db
          .query<{ key: string; value: Uint8Array }, []>(
            "SELECT key, value FROM state WHERE value IS NOT NULL",
          )
          .all();
        const entries = new Map(rows.map((row) => [row.key, row.value]));
        return { entries, lastSeq: BigInt(this.#meta("state_last_seq")), epoch: BigInt(this.#meta("epoch")) };
      })(),
    );
  }

  async append(
    key: string,
    value: Uint8Array | null,
    expectedLastSeq: bigint,
    options: { deadlineMs?: number } = {},
  ): Promise<bigint> {
    checkStateAppend(key, value, expectedLastSeq);
    checkDeadline(options.deadlineMs ?? DEFAULT_DEADLINE_MS);
    const expected = Number(expectedLastSeq);
    const seq = this.#guarded("written", () =>
      this.db.transaction(() => this.#appendRow(key, value, expected)).immediate(),
    );
    // SQLite answers within this turn of the event loop. A caller that appends many in a row would live on microtasks
    // alone and starve everything else of this process; so each append ends its turn.
    await nextTurn();
    return BigInt(seq);
  }

  /**
   * Raises the epoch, above `atLeast` if given, and moves the last sequence on, so that whoever held the lease before
   * finds its sequence stale.
   */
  seal(atLeast: bigint): bigint {
    return this.#guarded("written", () =>
      this.db
        .transaction(() => {
          const epoch = Math.max(this.#meta("epoch"), Number(atLeast)) + 1;
          this.#setMeta("epoch", epoch);
          this.#setMeta("state_last_seq", this.#meta("state_last_seq") + 1);
          return BigInt(epoch);
        })
        .immediate(),
    );
  }

  #appendRow(key: string, value: Uint8Array | null, expected: number): number {
    const last = this.#meta("state_last_seq");
    const old = this.db
      .query<StateRow, [string]>("SELECT value, seq, prev FROM state WHERE key = ?")
      .get(key);
    if (last !== expected) {
      if (old !== null && old.prev === expected && sameBytes(old.value, value)) return old.seq;
      throw new StaleWriterError(BigInt(expected), BigInt(last));
    }
    if (old === null && this.#keys >= LIMITS.stateKeys) {
      throw new StoreInputError(`the state log holds ${this.#keys} keys already, the most it takes`);
    }
    const seq = last + 1;
    // Keeping only the newest tombstone is enough: only the last append can be one whose answer got lost.
    const cleared = this.db.query("DELETE FROM state WHERE value IS NULL AND key <> ?").run(key).changes;
    this.db
      .query(
        "INSERT INTO state (key, value, seq, prev) VALUES (?, ?, ?, ?) " +
          "ON CONFLICT (key) DO UPDATE SET value = excluded.value, seq = excluded.seq, prev = excluded.prev",
      )
      .run(key, value, seq, last);
    this.#setMeta("state_last_seq", seq);
    this.#keys += (old === null ? 1 : 0) - cleared;
    return seq;
  }

  #meta(name: "epoch" | "state_last_seq"): number {
    return (
      this.db.query<{ value: number }, [string]>("SELECT value FROM meta WHERE name = ?").get(name)?.value ??
      0
    );
  }

  #setMeta(name: "epoch" | "state_last_seq", value: number): void {
    this.db.query("UPDATE meta SET value = ? WHERE name = ?").run(value, name);
  }

  #guarded<T>(verb: string, work: () => T): T {
    try {
      return work();
    } catch (cause) {
      if (cause instanceof StaleWriterError || cause instanceof StoreInputError) throw cause;
      throw new StoreUnavailableError(`the state log could not be ${verb}: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
}

function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  return a === null || b === null ? a === b : Buffer.compare(a, b) === 0;
}
