/** One agent per runtime directory. */
import { Database } from "bun:sqlite";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { AgentStartError } from "./errors.ts";
import { errnoOf, makePrivateDirectory, readIfThere, writeWhole } from "./files.ts";

/**
 * Exclusive use of a runtime directory for as long as this process lives: an open exclusive transaction on a tiny
 * database of its own. The kernel lets go of the file lock however the process ends, so that there is no stale lock
 * after `kill -9`; children do not inherit it; a second opener in the same process is refused too.
 */
export class DirectoryLock implements Disposable {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  /**
   * Makes the directory (0700) if there is none, and locks it. One that is there keeps its mode: tenants may live in it.
   * @throws AgentStartError naming the pid when an agent has it
   */
  static acquire(directory: string): DirectoryLock {
    makePrivateDirectory(directory);
    const path = join(directory, "lock.db");
    const owner = join(directory, "agent.pid");
    try {
      // Only ever created here, never reopened: closing any descriptor of a file drops this process's locks on it.
      closeSync(openSync(path, "wx", 0o600));
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    const db = new Database(path, { create: false, readwrite: true });
    try {
      db.run("PRAGMA busy_timeout = 0");
      db.run("BEGIN EXCLUSIVE");
    } catch (cause) {
      db.close();
      if (!errnoOf(cause).startsWith("SQLITE_BUSY")) throw cause;
      const pid = readIfThere(owner)?.trim();
      throw new AgentStartError(
        `the runtime directory ${directory} is in use by another agent${pid ? ` (pid ${pid})` : ""}: ` +
          "stop that one first, or give this one a directory of its own",
      );
    }
    try {
      writeWhole(owner, `${process.pid}\n`);
    } catch {
      // A full disk. It is for the message above alone; the lock is held.
    }
    return new DirectoryLock(db);
  }

  release(): void {
    this.#db.close();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
