/** Before the first signal: the connections to an instance may end. */
import type { Logger } from "@warren/common/log";
import { type Clock, pause } from "@warren/common/time";
import { messageOf } from "./files.ts";
import type { Kernel } from "./host/kernel.ts";

const pollMs = 20;

export interface DrainOptions {
  readonly kernel: Kernel;
  readonly port: number;
  /** Monotonic ms; may be moved forward while this waits. */
  readonly until: () => number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Until nobody is connected to the port, or the time is over, or the signal aborts. */
export async function drain({ kernel, port, until, clock, log }: DrainOptions, signal: AbortSignal) {
  while (!signal.aborted && clock.monotonic() < until()) {
    try {
      if (kernel.connectionsTo(port) === 0) return;
    } catch (error) {
      log.warn({ why: messageOf(error) }, "connections cannot be counted; draining takes its whole time");
    }
    await pause(pollMs, signal);
  }
}
