/** One holder at a time within this process, first come first served. */
export class Turn {
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  get taken(): boolean {
    return this.#taken;
  }

  /** @returns what the work does, in its turn; one that fails does not keep the next one from its own */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const give = await this.take(forEver);
    try {
      return await work();
    } finally {
      give();
    }
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

const forEver = new AbortController().signal;
