/** Virtual time: what is to happen, in order. A binary heap, since it is the hottest part of a simulation. */

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

export class Agenda {
  /** ms since the simulation began. */
  now = 0;
  #heap: Entry[] = [];
  #order = 0;

  /** Runs it in `ms`; what is due at the same moment runs in the order in which it was asked for. */
  after(ms: number, run: () => void): void {
    const entry = { at: this.now + Math.max(0, ms), order: ++this.#order, run };
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  /** Runs what is due until `end`, or until `done` says so. */
  runUntil(end: number, done: () => boolean): void {
    while (!done()) {
      const next = this.#heap[0];
      if (!next || next.at > end) break;
      this.#take();
      this.now = next.at;
      next.run();
    }
    if (!done()) this.now = Math.max(this.now, end);
  }

  #take(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
