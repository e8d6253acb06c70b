/**
 * A file of the agent's own that takes room while there is some, and gives it back when a tenant has filled the disk, so
 * that a stop, which ends that tenant, can still be written down. It buys a moment, not safety: a tenant that goes on
 * writing takes this room too.
 */
import { randomBytes } from "node:crypto";
import { rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf, freeBytes, isMissing } from "./files.ts";

/** Some thousand records. */
const defaultBytes = 4 * 1024 * 1024;
const noRoom = new Set(["ENOSPC", "EDQUOT"]);

export class Ballast {
  constructor(
    private readonly path: string,
    private readonly bytes = defaultBytes,
  ) {}

  /**
   * Takes the room, if it is not held and there is twice as much. Never fails; to be called at the start and now and
   * then. Costs 10 ms when it writes, else 10 µs.
   * @returns whether it is held
   */
  hold(): boolean {
    if (this.isHeld) return true;
    if (freeBytes(dirname(this.path)) < 2 * this.bytes) return false;
    try {
      // Not zeros, of which a file system that compresses makes nothing.
      writeFileSync(this.path, randomBytes(this.bytes), { mode: 0o600 });
      return true;
    } catch {
      this.release();
      return false;
    }
  }

  get isHeld(): boolean {
    try {
      return statSync(this.path).size === this.bytes;
    } catch {
      return false;
    }
  }

  release(): void {
    try {
      rmSync(this.path);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /**
   * Does it; when there is no room for it, once more with what was held.
   * @throws what `write` throws
   */
  guard<T>(write: () => T): T {
    try {
      return write();
    } catch (error) {
      if (!noRoom.has(errnoOf(error)) || !this.isHeld) throw error;
      this.release();
      return write();
    }
  }
}
