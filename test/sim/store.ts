/**
 * The store: a state log that only the newest epoch may append to, and a journal that keeps each event id once. It can be
 * slow or down; a caller whose answer is lost does not know whether it was taken, and asks again.
 */
import type { NodeRecord } from "@warren/proto/scheduler";
import type { Write } from "@warren/scheduler/core/effects";
import type { Loaded } from "@warren/scheduler/core/inputs";
import type { Agenda } from "./agenda.ts";
import type { Rng } from "./rng.ts";

export interface JournalEntry {
  readonly id: string;
  readonly record: NodeRecord;
}

export class Store {
  up = true;
  /** Every operation takes so much longer, ms. */
  slowMs = 0;
  /** Of the newest holder of the lease: older ones may not append. */
  epoch = 0n;
  readonly log = new Map<string, Write>();
  /** Every id that was ever placed. */
  readonly placed = new Set<string>();
  readonly journal = new Map<string, JournalEntry>();

  constructor(
    private readonly agenda: Agenda,
    private readonly rng: Rng,
  ) {}

  /** Takes the lease: from now on nobody with an older epoch can append. */
  seal(epoch: bigint): void {
    this.epoch = epoch;
  }

  /**
   * One append, tried until the store answers.
   * @param done with false when a newer epoch has sealed the log
   */
  append(epoch: bigint, write: Write, done: (taken: boolean) => void): void {
    let taken = false;
    const attempt = (wait: number): void => {
      this.agenda.after(wait, () => {
        if (this.up && !taken) {
          if (epoch < this.epoch) {
            this.agenda.after(this.#latency(), () => done(false));
            return;
          }
          taken = true;
          this.#apply(write);
        }
        this.agenda.after(this.#latency(), () => {
          if (this.up && taken) done(true);
          else attempt(Math.min(2_000, wait * 2) * this.rng.between(0.5, 1));
        });
      });
    };
    attempt(5 * this.rng.next() ** 4 + this.#latency());
  }

  /** Appends what is not there yet, all or nothing. Whoever hears `false` does not know. */
  journalAppend(entries: readonly JournalEntry[], done: (taken: boolean) => void): void {
    this.agenda.after(this.#latency(), () => {
      const wasUp = this.up;
      if (wasUp)
        for (const entry of entries) if (!this.journal.has(entry.id)) this.journal.set(entry.id, entry);
      if (wasUp) this.agenda.after(this.#latency(), () => done(this.up));
      else this.agenda.after(5_000, () => done(false));
    });
  }

  load(): Loaded {
    const loaded = { tenants: [], limits: [], releases: [], nodes: [], placements: [], volumes: [] } as {
      -readonly [K in keyof Loaded]: Loaded[K][number][];
    };
    for (const write of this.log.values()) {
      if (write.kind === "tenant") loaded.tenants.push(write.record);
      else if (write.kind === "limits") loaded.limits.push(...write.reached);
      else if (write.kind === "node") loaded.nodes.push(write.record);
      else if (write.kind === "volume") loaded.volumes.push(write.record);
      else if (write.kind === "placement") loaded.placements.push(write.ref);
    }
    return loaded;
  }

  #latency(): number {
    return this.rng.between(0.1, 1) + this.slowMs;
  }

  #apply(write: Write): void {
    switch (write.kind) {
      case "tenant":
        this.log.set(`tenant.${write.record.spec.key}`, write);
        return;
      case "tenant-gone":
        this.log.delete(`tenant.${write.key}`);
        return;
      case "limits":
        if (write.reached.length > 0) this.log.set(`limits.${write.tenant}`, write);
        else this.log.delete(`limits.${write.tenant}`);
        return;
      case "volume":
        this.log.set(`volume.${write.record.tenant}.${write.record.name}`, write);
        return;
      case "volume-gone":
        this.log.delete(`volume.${write.tenant}.${write.name}`);
        return;
      case "node":
        this.log.set(`node.${write.record.name}`, write);
        return;
      case "node-gone":
        this.log.delete(`node.${write.name}`);
        return;
      case "placement":
        this.placed.add(write.ref.id);
        this.log.set(`placement.${write.ref.id}`, write);
        return;
      case "placement-gone":
        this.log.delete(`placement.${write.id}`);
        return;
      default:
        write satisfies never;
    }
  }
}
