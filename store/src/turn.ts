/**
 * One holder at a time within this process, first come first served. The lease in the store keeps processes
 * apart; this keeps two callers of one process apart, who look like the same holder to the store.
 */
export class Turn {
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  get taken(): boolean {
    return this.#taken;
  }

  /**
   * Waits for the turn.
   * @returns the function that gives it back; calling it twice does nothing more
   * @throws the signal's reason
   */
  async take(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#taken) {
      await new Promise<void>((resolve, reject) => {
        const enter = () => {
          signal.removeEventListener("abort", leave);
          resolve();
        };
        const leave = () => {
          this.#waiting.splice(this.#waiting.indexOf(enter), 1);
          reject(signal.reason);
        };
        this.#waiting.push(enter);
        signal.addEventListener("abort", leave, { once: true });
      });
    }
    this.#taken = true;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      const next = this.#waiting.shift();
      // The turn passes on without being free in between, so that nobody can push in.
      if (next === undefined) this.#taken = false;
      else next();
    };
  }
}
