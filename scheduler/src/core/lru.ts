/**
 * Ready instances in the order of their last use, in classes of which the lower goes first: a use moves one to the end
 * of its class, so that finding the least recently used takes no search.
 */
export class Lru {
  readonly #classes: { readonly rank: number; readonly ids: Set<string> }[] = [];
  readonly #ranks = new Map<string, number>();
  /** Where the last look stopped before the end; what comes and goes meanwhile does not trouble it. */
  #rest: Iterator<string> | undefined;

  /** It may go from now on; one that might already keeps its turn. */
  add(id: string, rank: number): void {
    if (!this.#ranks.has(id)) this.use(id, rank);
  }

  /** It was used: the last one to go of its class. */
  use(id: string, rank: number): void {
    this.delete(id);
    this.#ranks.set(id, rank);
    let i = 0;
    while (i < this.#classes.length && this.#classes[i]!.rank < rank) i++;
    const found = this.#classes[i];
    if (found?.rank === rank) found.ids.add(id);
    else this.#classes.splice(i, 0, { rank, ids: new Set([id]) });
  }

  delete(id: string): void {
    const rank = this.#ranks.get(id);
    if (rank === undefined) return;
    this.#ranks.delete(id);
    const i = this.#classes.findIndex((one) => one.rank === rank);
    this.#classes[i]!.ids.delete(id);
    if (this.#classes[i]!.ids.size === 0) this.#classes.splice(i, 1);
  }

  /**
   * At most so many, the first to go first. Where that were not all, the next look goes on from there: a thousand that may
   * not go do not hide those behind them for ever.
   */
  *look(most: number): Generator<string> {
    const from = this.#rest ?? this[Symbol.iterator]();
    this.#rest = undefined;
    for (let left = most; left > 0; left--) {
      const next = from.next();
      if (next.done) return;
      yield next.value;
    }
    this.#rest = from;
  }

  /** The first to go first. */
  *[Symbol.iterator](): Iterator<string> {
    for (const { ids } of this.#classes) yield* ids;
  }
}
