/** What lives of a cell, as the kernel sees it: nobody's books are believed. */
import { readdirSync, readFileSync } from "node:fs";
import { pause } from "@warren/common/time";

/** Ids of instances with a live process: those whose environment says so. @param state the cell's state directory */
export function liveInstances(state: string): Set<string> {
  const found = new Set<string>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, "latin1");
      if (!environment.includes(`WARREN_NODE=`) || !environment.includes(state)) continue;
      const id = /(?:^|\0)WARREN_INSTANCE=([^\0]+)/.exec(environment)?.[1];
      if (id) found.add(id);
    } catch {
      // gone while we looked, or another user's
    }
  }
  return found;
}

/** The most that lived at any sample while the work was done. */
export async function sampled<T>(
  state: string,
  work: Promise<T>,
): Promise<{ most: number; samples: number; outcome: T }> {
  const stop = new AbortController();
  let most = 0;
  let samples = 0;
  const sampling = (async () => {
    for (; !stop.signal.aborted; await pause(2, stop.signal)) {
      most = Math.max(most, liveInstances(state).size);
      samples++;
    }
  })();
  const outcome = await work;
  stop.abort();
  await sampling;
  return { most, samples, outcome };
}
