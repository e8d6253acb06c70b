/** Which lines that have no newline yet are told to one reader: a prompt, a progress, what a hanging app said last. */
import type { Line, StreamName } from "./line.ts";

/** One is told once nothing was added to it for so long: most are whole a moment later. */
const quietMs = 250;

export class Begun {
  readonly #seen = new Map<StreamName, { text: string; since: number; told: boolean }>();

  /**
   * @param now ms
   * @param atOnce nobody looks again
   */
  told(begun: readonly (readonly [StreamName, string])[], now: number, atOnce: boolean): Line[] {
    return begun.flatMap(([stream, text]) => {
      const before = this.#seen.get(stream);
      const seen = before?.text === text ? before : { text, since: now, told: false };
      this.#seen.set(stream, seen);
      if (text === "" || seen.told || (!atOnce && now - seen.since < quietMs)) return [];
      seen.told = true;
      return [{ stream, at: now, text, cut: false, partial: true as const }];
    });
  }
}
