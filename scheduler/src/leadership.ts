/** Whether this scheduler leads, and whom it follows if it does not. */
import { Code, type ConnectError, detail, rpcError } from "@warren/common/rpc/errors";
import { NotLeaderSchema } from "@warren/proto/common";
import type { Term } from "./term.ts";

/** A scheduler that leads, as the lease names it. */
export interface Leader {
  readonly holder: string;
  /** "https://host:port"; empty where it did not say. */
  readonly address: string;
  readonly epoch: bigint;
}

export class Leadership {
  #term: Term | undefined;
  #leader: Leader | undefined;
  #terms = 0;

  constructor(private readonly onChange: (leads: boolean) => void) {}

  /** The term of this scheduler, while it leads by the lease's own clock. */
  get term(): Term | undefined {
    return this.#term?.holds ? this.#term : undefined;
  }

  /** How often this process has taken the lead. */
  get terms(): number {
    return this.#terms;
  }

  lead(term: Term): void {
    this.#term = term;
    this.#leader = undefined;
    this.#terms++;
    this.onChange(true);
  }

  /** @param leader nobody while it is not known who leads */
  follow(leader?: Leader): void {
    const led = this.#term !== undefined;
    this.#term = undefined;
    this.#leader = leader;
    if (led) this.onChange(false);
  }

  /** @param begun whether something may have been done already */
  refusal(begun: boolean): ConnectError {
    const { address: leaderUrl = "", epoch = 0n } = this.#leader ?? {};
    const where = leaderUrl
      ? `: ask the one at ${leaderUrl}`
      : ", and knows of none that does (as long as the store is away there is none): try again shortly";
    const what = begun ? "has ceased to lead meanwhile" : "does not lead";
    return rpcError(
      Code.Unavailable,
      `this scheduler ${what}${where}`,
      detail(NotLeaderSchema, { leaderUrl, epoch, begun }),
    );
  }
}
