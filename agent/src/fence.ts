/**
 * The highest scheduler epoch this node has seen, on disk. A command of a lower one comes from a scheduler whose lease
 * is over, and is refused: safety comes from this, not from anybody's clock.
 */

import type { Logger } from "@warren/common/log";
import { Code, detail, rpcError } from "@warren/common/rpc/errors";
import { StaleEpochSchema } from "@warren/proto/common";
import { messageOf, readIfThere, writeWhole } from "./files.ts";

export class Fence {
  #highest: bigint;
  /** Whether the disk knows less than we do. */
  #unwritten = false;

  constructor(
    private readonly path: string,
    private readonly log?: Logger,
  ) {
    const text = readIfThere(path)?.trim() ?? "";
    this.#highest = /^\d+$/.test(text) ? BigInt(text) : 0n;
  }

  get highest(): bigint {
    return this.#highest;
  }

  /**
   * From now on anything older is refused, by every agent that comes after this one too. Never fails: a full disk must
   * not keep a new scheduler from stopping the tenant that filled it. What cannot be written holds in memory, and is
   * written at the next call that can, at the latest the next report. Lost is this: an agent that dies before then is
   * followed by one that takes commands of the epoch before until it has joined, which raises the epoch again.
   */
  raise(epoch: bigint): void {
    if (epoch <= this.#highest && !this.#unwritten) return;
    if (epoch > this.#highest) this.#highest = epoch;
    try {
      writeWhole(this.path, `${this.#highest}\n`);
      this.#unwritten = false;
    } catch (error) {
      const fields = { why: messageOf(error), epoch: String(this.#highest) };
      if (!this.#unwritten) this.log?.error(fields, "the epoch cannot be written; it holds in memory");
      this.#unwritten = true;
    }
  }

  /**
   * @throws ConnectError FAILED_PRECONDITION with StaleEpoch
   */
  check(epoch: bigint): void {
    if (epoch < this.#highest) {
      throw rpcError(
        Code.FailedPrecondition,
        `this command is of epoch ${epoch}, but epoch ${this.#highest} has spoken: its scheduler's lease is over`,
        detail(StaleEpochSchema, { epoch, current: this.#highest }),
      );
    }
    this.raise(epoch);
  }
}
