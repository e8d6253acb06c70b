import { closeSync, constants, fsyncSync, openSync } from "node:fs";

/**
 * Makes the file with mode 0600 if there is none. An existing file is not even opened: POSIX drops all of a process's
 * locks on a file when *any* of its descriptors closes, and this process may hold a SQLite lock on it.
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** Makes renames and deletions in a directory survive a power failure. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
