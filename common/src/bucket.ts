/** A token bucket: how often something may happen. */

export class Bucket {
  #tokens: number;
  #at: number;

  /**
   * @param capacity how often at once
   * @param perSecond how often in the long run
   * @param monotonic ms
   */
  constructor(
    readonly capacity: number,
    readonly perSecond: number,
    private readonly monotonic: () => number,
  ) {
    this.#tokens = capacity;
    this.#at = monotonic();
  }

  /** How long until there is one, ms; 0 when there is one now. */
  get waitMs(): number {
    this.#fill();
    return this.#tokens >= 1 ? 0 : Math.max(1, Math.ceil(((1 - this.#tokens) * 1000) / this.perSecond));
  }

  /** Takes one; false when there is none. */
  take(): boolean {
    this.#fill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #fill(): void {
    const now = this.monotonic();
    this.#tokens = Math.min(this.capacity, this.#tokens + ((now - this.#at) / 1000) * this.perSecond);
    this.#at = now;
  }
}
