/** When something is due: a binary heap by time. Entries are not taken out; whoever armed anew ignores the old one. */
export interface Timer {
  readonly at: number;
  readonly kind: "instance" | "tenant";
  readonly key: string;
}

export class Timers {
  readonly #heap: Timer[] = [];

  get size(): number {
    return this.#heap.length;
  }

  add(timer: Timer): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(timer);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (heap[parent]!.at <= timer.at) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = timer;
  }

  /** The earliest, if it is due at `mono`. */
  pop(mono: number): Timer | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.at > mono) return undefined;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
      if (heap[child]!.at >= last.at) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}
