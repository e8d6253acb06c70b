import { Database } from "bun:sqlite";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { StoreLockedError } from "./errors.ts";
import { createPrivateFile } from "./files.ts";

const LOCK_FILE = "lock.db";
const OWNER_FILE = "owner.pid";
const ID_FILE = "directory.id";

/** Keeps what is locked from the garbage collector, which would close a database that nobody refers to any more. */
const HELD = new Set<DirectoryLock>();

/**
 * Exclusive use of a state directory, for as long as this process lives: an open exclusive transaction on a tiny
 * database file of its own. The kernel lets go of its file lock when the process ends, `kill -9` included, so there is
 * no stale lock to clean up; a second opener in the *same* process is refused too. The data's own
 * database is not locked, because other processes read it.
 */
export class DirectoryLock implements Disposable {
  private constructor(
    readonly directory: string,
    /** Names this directory for ever, whatever path leads to it. */
    readonly directoryId: string,
    private readonly db: Database,
  ) {
    HELD.add(this);
  }

  /**
   * Makes the directory (0700) if there is none, and locks it.
   * @throws StoreLockedError when another process, or this one, has it open
   */
  static acquire(directory: string): DirectoryLock {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    chmodSync(directory, 0o700);
    const path = join(directory, LOCK_FILE);
    createPrivateFile(path);
    const db = new Database(path, { create: false, readwrite: true });
    try {
      db.run("PRAGMA busy_timeout = 0");
      db.run("BEGIN EXCLUSIVE");
    } catch (cause) {
      db.close();
      if ((cause as { code?: unknown }).code !== "SQLITE_BUSY") throw cause;
      throw new StoreLockedError(
        `the state directory ${directory} is in use by another process${ownerHint(directory)}: ` +
          "stop that one first, or give this one a directory of its own",
      );
    }
    writeFileSync(join(directory, OWNER_FILE), `${process.pid}\n`, { mode: 0o600 });
    return new DirectoryLock(directory, directoryId(directory), db);
  }

  release(): void {
    HELD.delete(this);
    this.db.close();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function ownerHint(directory: string): string {
  try {
    return ` (pid ${readFileSync(join(directory, OWNER_FILE), "utf8").trim()})`;
  } catch {
    // The owner may not have written its pid yet; the message does without.
    return "";
  }
}

/** Called with the lock held, so a file left empty by a crash is simply written anew. */
function directoryId(directory: string): string {
  const path = join(directory, ID_FILE);
  if (existsSync(path)) {
    const id = readFileSync(path, "utf8").trim();
    if (id !== "") return id;
  }
  const id = crypto.randomUUID();
  writeFileSync(path, `${id}\n`, { mode: 0o600 });
  return id;
}
