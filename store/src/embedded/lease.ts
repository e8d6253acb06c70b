import { Turn } from "@warren/common/turn";
import { LeaseLostError } from "../errors.ts";
import type { Lease, LeaseOptions } from "../store.ts";
import type { EmbeddedState } from "./state.ts";

/** Who holds it now, for those who wait. */
interface Holder {
  readonly holder: string;
  readonly address: string;
  readonly epoch: bigint;
}

/**
 * The lease of the embedded store. The directory's lock keeps other processes out, so all that is left is one holder
 * at a time within this one, and an epoch that rises at each acquisition.
 */
export class EmbeddedLeases {
  readonly #turn = new Turn();
  readonly #lost = new AbortController();
  #current: Holder | undefined;

  constructor(readonly state: EmbeddedState) {}

  async acquire(options: LeaseOptions): Promise<Lease> {
    this.#lost.signal.throwIfAborted();
    if (this.#current !== undefined) options.onWaiting?.(this.#current);
    const giveBack = await this.#turn.take(AbortSignal.any([options.signal, this.#lost.signal]));
    try {
      const epoch = this.state.seal(options.atLeast ?? 0n);
      this.#current = { holder: options.holder, address: options.address, epoch };
      const isHeld = () => this.#current?.epoch === epoch && !this.#lost.signal.aborted;
      return {
        epoch,
        lost: this.#lost.signal,
        get held() {
          return isHeld();
        },
        release: async () => {
          if (this.#current?.epoch === epoch) this.#current = undefined;
          giveBack();
        },
      };
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** The lease cannot outlive the store that it was taken from. */
  close(): void {
    this.#lost.abort(new LeaseLostError("the store was closed"));
  }
}
