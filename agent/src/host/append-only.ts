/**
 * Makes another process write at the end of a file that it has opened in another way. Two who write to one file, one of
 * them from its own place in it, overwrite each other; at the end they do not, like on a pipe.
 */
import { closeSync, constants, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { openLibc } from "./libc.ts";
import { countOpenFiles } from "./procfs.ts";

const sysPidfdOpen = 434; // the same numbers on every architecture
const sysPidfdGetfd = 438;
const setFlags = 4;

const libc =
  process.platform === "linux"
    ? openLibc({
        syscall: { args: ["i64", "i64", "i64", "i64"], returns: "i64" },
        fcntl: { args: ["i32", "i32", "i64"], returns: "i32" },
      })
    : undefined;

/** Never throws: the process may be gone, and what cannot be changed stays as it is. */
export function appendOnly(pid: number, path: string): void {
  if (!libc) return;
  for (const { descriptor, flags } of openedBy(pid, path)) {
    if ((flags & constants.O_APPEND) !== 0) continue;
    const process = Number(libc.syscall(sysPidfdOpen, pid, 0, 0));
    if (process < 0) return;
    const ours = Number(libc.syscall(sysPidfdGetfd, process, descriptor, 0));
    closeSync(process);
    if (ours < 0) continue;
    // It may be another file by now, whose flags are not ours to change.
    if (linkOf(`/proc/self/fd/${ours}`) === path) libc.fcntl(ours, setFlags, flags | constants.O_APPEND);
    closeSync(ours);
  }
}

/** Of a process with more descriptors none is looked at: it is the tenant's to choose how many it has. */
const mostDescriptors = 256;

function openedBy(pid: number, path: string): { descriptor: number; flags: number }[] {
  try {
    if ((countOpenFiles(pid) ?? 0) > mostDescriptors) return [];
    return readdirSync(`/proc/${pid}/fd`)
      .filter((name) => linkOf(`/proc/${pid}/fd/${name}`) === path)
      .map((name) => {
        const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${name}`, "latin1"))?.[1];
        return { descriptor: Number(name), flags: Number.parseInt(flags ?? "0", 8) };
      })
      .filter(({ flags }) => (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0);
  } catch {
    return []; // it has ended
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
