/**
 * Wakes whoever waits for "something changed". A waiter names the version it has seen, so a change between its look
 * and its wait is not missed.
 */
export class Notifier {
  #version = 0;
  readonly #waiting = new Set<() => void>();

  get version(): number {
    return this.#version;
  }

  notify(): void {
    this.#version++;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Resolves once the version is above `seen`, or when the signal aborts. */
  after(seen: number, signal: AbortSignal): Promise<void> {
    if (this.#version > seen || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
