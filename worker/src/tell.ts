/** What a tenant tells its agent: that it is ready, and that it lives. */
import { exchange } from "./wire.ts";

/** One try takes at most this long, ms: an agent that is being replaced may hold its last connections open. */
const tryMs = 5_000;
const firstWaitMs = 10;
const longestWaitMs = 1_000;
/** Most starts have 30 s to become ready: later nobody listens any more. */
const defaultReadyMs = 30_000;
const defaultHeartbeatMs = 5_000;

export interface ReadyOptions {
  /** How long it may take to tell the agent, ms. Default 30,000. */
  readonly deadlineMs?: number;
}

let telling: Promise<void> | undefined;

/**
 * Tells the agent that this app can serve: what a spec with readiness `MESSAGE` waits for. Resolves once the agent has
 * taken note, at once where there is no agent; asked again, it answers the same. An agent that is being replaced is
 * waited for. Who does not wait for the promise is not ended by its rejection.
 * @throws Error saying what hindered it until the deadline, or why the agent refused
 */
export function ready(options: ReadyOptions = {}): Promise<void> {
  const socket = agentSocket();
  if (!socket) return Promise.resolve();
  if (!telling) {
    telling = tellReady(socket, options.deadlineMs ?? defaultReadyMs);
    telling.catch(() => {
      telling = undefined; // the next call tries anew
    });
  }
  return telling;
}

async function tellReady(socket: string, deadlineMs: number): Promise<void> {
  const began = performance.now();
  for (let wait = firstWaitMs; ; wait = Math.min(longestWaitMs, wait * 2)) {
    let why: string;
    try {
      const left = deadlineMs - (performance.now() - began);
      const reply = await exchange(socket, "ready", Math.max(1, Math.min(tryMs, left)), true);
      if (reply.kind === "ok") return;
      throw new Refusal(`the agent refused ready(): ${reply.message}`);
    } catch (error) {
      if (error instanceof Refusal) throw error;
      why = (error as Error).message;
    }
    const pause = wait * (0.5 + Math.random() / 2);
    if (performance.now() - began + pause >= deadlineMs) {
      throw new Error(`the agent could not be told within ${deadlineMs} ms that this app is ready: ${why}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** To try again would change nothing. */
class Refusal extends Error {
  override readonly name = "Refusal";
}

/**
 * Tells the agent again and again that this app's event loop runs: what a spec with a liveness heartbeat expects. The
 * first is sent at once. One that cannot be sent is dropped; the process is never kept alive by it.
 * @param everyMs between two; default a third of what the agent allows, else 5,000
 * @returns ends it
 * @throws RangeError when `everyMs` is below 10
 */
export function heartbeat(everyMs: number = agentHeartbeatMs()): () => void {
  if (!(everyMs >= 10)) throw new RangeError(`heartbeat: at most one each 10 ms, not each ${everyMs} ms`);
  const socket = agentSocket();
  if (!socket) return () => {};
  let sending = false;
  const beat = () => {
    if (sending) return;
    sending = true;
    exchange(socket, "heartbeat", tryMs, false)
      .catch(() => undefined) // the agent is away: the next one will find it, or the one after
      .finally(() => {
        sending = false;
      });
  };
  beat();
  const timer = setInterval(beat, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}

function agentSocket(): string | undefined {
  return process.env.WARREN_SOCKET || undefined;
}

/** A third of the longest silence that the agent says it bears, so that two in a row may be lost. */
function agentHeartbeatMs(): number {
  const allowed = Number(process.env.WARREN_HEARTBEAT_MS);
  return allowed > 0 ? Math.max(10, allowed / 3) : defaultHeartbeatMs;
}
