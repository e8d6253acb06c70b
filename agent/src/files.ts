/** The agent's files and directories, its user's alone. */
import { mkdirSync, rmSync, statfsSync } from "node:fs";

export { errnoOf, isMissing, readIfThere, writeWhole } from "@warren/common/files";

export function makePrivateDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
}

/** What an unprivileged process could still write to the disk of this path, in bytes; 0 if that cannot be told. */
export function freeBytes(path: string): number {
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  } catch {
    return 0;
  }
}

export function removeTree(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 2 });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
