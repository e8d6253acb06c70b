/**
 * Keeps releases from being collected while somebody is about to use them. What was uploaded, or named by a spec that is
 * being applied, is held for a while; what is being removed is not put back before it is gone.
 */

/** More than that at once, and nothing is collected until some are forgotten: rather too much kept than too little. */
const most = 100_000;

export class Holds {
  /** Digest → until when (monotonic ms), oldest first. */
  readonly #until = new Map<string, number>();
  readonly #leaving = new Map<string, Promise<void>>();

  constructor(
    /** How long each lasts. */
    readonly holdMs: number,
    private readonly monotonic: () => number,
  ) {}

  /** From now on it is kept for the time of a hold. */
  hold(digest: string): void {
    const now = this.monotonic();
    for (const [old, until] of this.#until) {
      if (until > now) break;
      this.#until.delete(old);
    }
    this.#until.delete(digest);
    if (this.#until.size < most) this.#until.set(digest, now + this.holdMs);
  }

  isHeld(digest: string): boolean {
    return this.#until.size >= most || (this.#until.get(digest) ?? 0) > this.monotonic();
  }

  /** Holds it, and resolves when nobody removes it any more: what is stored from then on stays. */
  async arrive(digest: string): Promise<void> {
    this.hold(digest);
    await this.#leaving.get(digest);
  }

  /** Runs the removal of what is not held; who brings it anew meanwhile waits for the end. Joined by a second one. */
  leave(digest: string, remove: () => Promise<void>): Promise<void> {
    const under = this.#leaving.get(digest);
    if (under) return under;
    const leaving = remove().finally(() => this.#leaving.delete(digest));
    // Whoever arrives waits for the end, however it comes.
    this.#leaving.set(
      digest,
      leaving.catch(() => {}),
    );
    return leaving;
  }
}
