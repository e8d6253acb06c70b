/**
 * Gives the memory of frozen processes to swap or zram: by the cgroup where it can be asked, else process by process
 * with process_madvise(MADV_PAGEOUT). Costs 4 ms for a hello-world app and 250 ms for a heavy one, so that it is done in
 * parts between which others have their turn.
 */
import { ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { openLibc } from "./host/libc.ts";

const sysPidfdOpen = 434; // these numbers are the same on every architecture
const sysProcessMadvise = 440;
const madvPageout = 21;
/** In one call: a few ms of work. */
const bytesAtOnce = 16 * 1024 * 1024;

const libc =
  process.platform === "linux"
    ? openLibc({
        syscall: { args: ["i64", "i64", "ptr", "i64", "i64", "i64"], returns: "i64" },
        close: { args: ["i32"], returns: "i32" },
      })
    : undefined;

/** An address range of a process. */
export interface Range {
  readonly from: bigint;
  readonly bytes: bigint;
}

/** Private writable ranges in the text of /proc/<pid>/maps: what only swap can take. Cut into parts of `atMost`. */
export function parseMaps(text: string, atMost = bytesAtOnce): Range[] {
  const ranges: Range[] = [];
  for (const line of text.split("\n")) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) /.exec(line);
    if (!match || !match[3]!.startsWith("rw") || match[3]![3] !== "p") continue;
    const end = BigInt(`0x${match[2]}`);
    for (let from = BigInt(`0x${match[1]}`); from < end; from += BigInt(atMost)) {
      ranges.push({ from, bytes: end - from < BigInt(atMost) ? end - from : BigInt(atMost) });
    }
  }
  return ranges;
}

/** @param isWanted asked between the parts: false once it was thawed */
export async function pageOutProcesses(pids: readonly number[], isWanted: () => boolean): Promise<void> {
  for (const pid of pids) {
    if (!isWanted()) return;
    await pageOutProcess(pid, isWanted);
  }
}

async function pageOutProcess(pid: number, isWanted: () => boolean): Promise<void> {
  if (!libc) return;
  let ranges: Range[];
  try {
    ranges = parseMaps(readFileSync(`/proc/${pid}/maps`, "latin1"));
  } catch {
    return; // gone meanwhile
  }
  const pidfd = Number(libc.syscall(sysPidfdOpen, pid, null, 0, 0, 0));
  if (pidfd < 0) return;
  try {
    let batch: Range[] = [];
    let bytes = 0n;
    const flush = async () => {
      const vector = new BigUint64Array(batch.flatMap((range) => [range.from, range.bytes]));
      if (batch.length > 0) libc.syscall(sysProcessMadvise, pidfd, ptr(vector), batch.length, madvPageout, 0);
      batch = [];
      bytes = 0n;
      await new Promise(setImmediate);
    };
    for (const range of ranges) {
      batch.push(range);
      bytes += range.bytes;
      if (bytes < BigInt(bytesAtOnce) && batch.length < 512) continue;
      await flush();
      if (!isWanted()) return;
    }
    await flush();
  } finally {
    libc.close(pidfd);
  }
}
