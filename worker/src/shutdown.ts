/** Ending in order: an app that does not listen to SIGTERM dies at once, with whatever it was answering. */

export type ShutdownSignal = "SIGTERM" | "SIGINT";
export type ShutdownHandler = (signal: ShutdownSignal) => void | Promise<void>;

export interface ShutdownOptions {
  /**
   * How long the handler may take, ms. Default 4,500: the agent sends SIGKILL 5 s after SIGTERM unless the spec's
   * `stop.grace` says otherwise.
   */
  readonly deadlineMs?: number;
}

interface Entry {
  readonly handler: ShutdownHandler;
  readonly deadlineMs: number;
}

const defaultDeadlineMs = 4_500;
const signals: readonly ShutdownSignal[] = ["SIGTERM", "SIGINT"];
const entries = new Set<Entry>();
let ending = false;

/**
 * Runs the handler on the first SIGTERM or SIGINT, together with all others, and then ends the process: with code 0, or
 * with 1 if one of them failed or was not done by its deadline. Later signals change nothing. Works without an agent.
 * @returns takes the handler back; without any, signals end the process as they would have
 */
export function onShutdown(handler: ShutdownHandler, options: ShutdownOptions = {}): () => void {
  const entry = { handler, deadlineMs: options.deadlineMs ?? defaultDeadlineMs };
  if (entries.size === 0) for (const signal of signals) process.on(signal, shutDown);
  entries.add(entry);
  return () => {
    if (!entries.delete(entry) || entries.size > 0 || ending) return;
    for (const signal of signals) process.off(signal, shutDown);
  };
}

async function shutDown(signal: NodeJS.Signals): Promise<void> {
  if (ending) return;
  ending = true;
  const done = await Promise.all([...entries].map((entry) => run(entry, signal as ShutdownSignal)));
  process.exit(done.every(Boolean) ? 0 : 1);
}

/** Whether it was done in time and without an error. */
async function run({ handler, deadlineMs }: Entry, signal: ShutdownSignal): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const why = `a shutdown handler was not done within ${deadlineMs} ms`;
    timer = setTimeout(() => reject(new Error(why)), deadlineMs);
  });
  try {
    // In a function of its own, so that one that throws at once does not keep the others from running.
    await Promise.race([(async () => handler(signal))(), late]);
    return true;
  } catch (error) {
    console.error(error);
    return false;
  } finally {
    clearTimeout(timer);
  }
}
