/**
 * The highest scheduler epoch this node has seen, on disk. A command of a lower one comes from a scheduler whose lease
 * is over, and is refused: safety comes from this, not from anybody's clock.
 */
import { Code, detail, rpcError } from "@warren/common/rpc/errors";
import { StaleEpochSchema } from "@warren/proto/common";
import { readIfThere, writeWhole } from "./files.ts";

export class Fence {
  #highest: bigint;

  constructor(private readonly path: string) {
    const text = readIfThere(path)?.trim() ?? "";
    this.#highest = /^\d+$/.test(text) ? BigInt(text) : 0n;
  }

  get highest(): bigint {
    return this.#highest;
  }

  /** From now on anything older is refused, by every agent that comes after this one too. */
  raise(epoch: bigint): void {
    if (epoch <= this.#highest) return;
    writeWhole(this.path, `${epoch}\n`);
    this.#highest = epoch;
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
