/** Steady requests to a tenant while something happens to the cell; each failure is kept. */
import { pause } from "@warren/common/time";

export interface Traffic {
  /** Requests answered 200. */
  readonly ok: number;
  /** What went wrong, in words. */
  readonly failures: readonly string[];
  /** Ends it and waits for the last answer. */
  stop(): Promise<void>;
}

/**
 * One request each `everyMs`, whether the one before was answered or not, without retries.
 * @param seconds at most so long
 */
export function startTraffic(url: string, everyMs = 20, seconds = 60): Traffic {
  const stopping = new AbortController();
  const failures: string[] = [];
  const open = new Set<Promise<void>>();
  let ok = 0;
  const one = async (): Promise<void> => {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
      await response.text();
      if (response.status === 200) ok++;
      else failures.push(`status ${response.status}`);
    } catch (error) {
      failures.push((error as Error).message);
    }
  };
  const running = (async () => {
    const end = performance.now() + seconds * 1000;
    while (!stopping.signal.aborted && performance.now() < end) {
      const request = one().finally(() => open.delete(request));
      open.add(request);
      await pause(everyMs, stopping.signal);
    }
    await Promise.all(open);
  })();
  return {
    get ok() {
      return ok;
    },
    failures,
    async stop() {
      stopping.abort();
      await running;
    },
  };
}
