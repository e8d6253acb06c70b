/** Notes in memory: gone when the instance stops, as a tenant's memory is. */
import type { NoteInput, NotePatch } from "./schema.ts";

export interface Note extends NoteInput {
  readonly id: string;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export class StoreFullError extends Error {}

export class NoteStore {
  readonly #notes = new Map<string, Note>();
  #next = 1;

  constructor(private readonly bound: number) {}

  add(input: NoteInput): Note {
    if (this.#notes.size >= this.bound) throw new StoreFullError(`there are ${this.bound} notes already`);
    const now = new Date().toISOString();
    const note = { id: String(this.#next++), ...input, createdAt: now, updatedAt: now };
    this.#notes.set(note.id, note);
    return note;
  }

  get(id: string): Note | undefined {
    return this.#notes.get(id);
  }

  change(id: string, patch: NotePatch): Note | undefined {
    const note = this.#notes.get(id);
    if (!note) return undefined;
    const changed = { ...note, ...patch, updatedAt: new Date().toISOString() };
    this.#notes.set(id, changed);
    return changed;
  }

  remove(id: string): boolean {
    return this.#notes.delete(id);
  }

  /** A page by id, and where the next begins. */
  list(page: { after?: string; limit: number; tag?: string }): { notes: Note[]; next?: string } {
    const after = Number(page.after ?? 0);
    const found: Note[] = [];
    for (const note of this.#notes.values()) {
      if (Number(note.id) <= after || (page.tag && !note.tags.includes(page.tag))) continue;
      if (found.length === page.limit) return { notes: found, next: found.at(-1)?.id };
      found.push(note);
    }
    return { notes: found };
  }
}
