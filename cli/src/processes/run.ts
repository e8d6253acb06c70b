/** The life of a process: start → say that it is ready → wait for a signal → stop, with a deadline. */
import { rename, writeFile } from "node:fs/promises";
import type { Logger } from "@warren/common/log";
import { identify, type ProcessIdentity } from "@warren/common/process";
import { withDeadline } from "@warren/common/time";
import { startTracing } from "@warren/common/tracing";
import { exitCodes, fail, UserError } from "../exit.ts";
import { version } from "../version.ts";

/** What a process says of itself once it serves: in its ready file, for whoever supervises it. */
export interface Ready extends ProcessIdentity {
  readonly process: string;
  readonly facts: Readonly<Record<string, string>>;
}

export interface Running {
  /** Where it is: URLs, ports. */
  readonly facts: Readonly<Record<string, string>>;
  readonly stop: () => Promise<void>;
  /** Stops, and leaves to the next process of its kind what `stop` might end: asked for by `handOverSignal`. */
  readonly handOver?: () => Promise<void>;
}

/**
 * Ends a process whose successor is about to start. One that does not know it, or is still starting, is ended by the
 * kernel: a crash, after which the successor finds the same.
 */
export const handOverSignal = "SIGUSR2";

export interface RunOptions {
  readonly process: string;
  readonly log: Logger;
  readonly readyFile?: string;
  readonly stopDeadlineMs: number;
  /** @param fatal ends the process: it can do no more good */
  readonly start: (fatal: (error: Error) => void) => Promise<Running>;
}

/** A supervisor need not try again with a store that is there and is another one. */
function refused(error: unknown): unknown {
  const isMismatch = error instanceof Error && error.name === "StoreMismatchError";
  return isMismatch ? new UserError(error.message, exitCodes.refused) : error;
}

/** Runs until a signal or a fatal error; never returns. */
export async function runProcess(options: RunOptions): Promise<never> {
  const { log } = options;
  let fatal: Error | undefined;
  let wake: () => void = () => {};
  const end = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const onFatal = (error: Error): void => {
    fatal ??= error;
    wake();
  };
  let signals = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (++signals > 1) process.exit(exitCodes.interrupted); // asked twice: at once
      wake();
    });
  }
  // A stray error in a callback must not leave half a process behind: the supervisor starts a whole one.
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "uncaught");
    process.exit(exitCodes.failed);
  });
  process.on("unhandledRejection", (reason) => {
    log.fatal({ err: reason }, "unhandled rejection");
    process.exit(exitCodes.failed);
  });

  const tracing = await startTracing({ process: options.process, version, log });
  const running = await options.start(onFatal).catch((error: unknown) => fail(refused(error)));
  let stop = running.stop;
  const { handOver } = running;
  if (handOver) {
    process.once(handOverSignal, () => {
      if (signals === 0) stop = handOver;
      wake();
    });
  }
  if (options.readyFile) {
    const ready: Ready = { ...identify(process.pid)!, process: options.process, facts: running.facts };
    await writeFile(`${options.readyFile}.new`, JSON.stringify(ready), { mode: 0o600 });
    await rename(`${options.readyFile}.new`, options.readyFile);
  }
  log.info(running.facts, `the ${options.process} serves`);
  await end;
  if (fatal) log.error({ err: fatal }, "stopping");
  let clean = true;
  try {
    await withDeadline(stop(), options.stopDeadlineMs, `stopping the ${options.process}`);
  } catch (error) {
    log.error({ err: error }, "not stopped cleanly");
    clean = false;
  }
  await tracing.stop();
  process.exit(clean && !fatal ? exitCodes.ok : exitCodes.failed);
}
