/** Small files that are whole or not there at all, readable by the process's user alone. */
import { readFileSync, renameSync, writeFileSync } from "node:fs";

/** Replaces the file at once: a reader, or a process that comes back after `kill -9`, sees the old text or the new. */
export function writeWhole(path: string, text: string): void {
  const next = `${path}.new`;
  writeFileSync(next, text, { mode: 0o600 });
  renameSync(next, path);
}

/** The file's text, or undefined where there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Whether an error of the file system says that the thing is not there; ENODEV: a cgroup, removed while it was open. */
export function isMissing(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "ENOENT" || code === "ENOTDIR" || code === "ESRCH" || code === "ENODEV";
}

/** "ENOENT" and the like, or "" for what is no such error. */
export function errnoOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === "string" ? code : "";
}
