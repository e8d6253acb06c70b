/** Tells the scheduler of traffic, batch by batch, each until it was acknowledged. */
import type { Logger } from "@warren/common/log";
import { backoff, pause } from "@warren/common/time";
import type { SchedulerLink } from "./link.ts";
import type { Traffic } from "./traffic.ts";

export interface TrafficReporterOptions {
  readonly traffic: Traffic;
  readonly link: Pick<SchedulerLink, "reportTraffic">;
  readonly log: Logger;
  /** Between two rounds; in a round each tenant is told of once. */
  readonly intervalMs: number;
  /** Deadline of one batch: it is answered when the journal has it. */
  readonly deadlineMs: number;
  /** How long the last of it is tried to tell at the end. */
  readonly lastWordsMs: number;
}

const longestWaitMs = 30_000;

export class TrafficReporter {
  readonly #options: TrafficReporterOptions;
  readonly #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #failures = 0;

  constructor(options: TrafficReporterOptions) {
    this.#options = options;
  }

  /** Begins to tell. */
  start(): void {
    this.#running = this.#run();
  }

  /** Tells the last of it, for as long as that may take, and ends. */
  async stop(): Promise<void> {
    const { traffic, lastWordsMs, log } = this.#options;
    // What was on its way is told again, in what time is left: it has the same numbers.
    this.#stopping.abort();
    await this.#running;
    const ending = AbortSignal.timeout(lastWordsMs);
    this.#failures = 0;
    while (!(await this.#tell(ending, Number.POSITIVE_INFINITY)) && !ending.aborted)
      await pause(this.#wait(100), ending);
    const left = traffic.batch(Date.now()).length;
    if (left > 0) log.error({ tenants: left }, "the gateway ends, and its last traffic could not be told");
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await pause(this.#wait(this.#options.intervalMs), signal);
      if (!signal.aborted) await this.#tell(signal, this.#options.traffic.batches);
    }
  }

  /** Spread a little: gateways that were started at once need not go on telling at once. */
  #wait(ms: number): number {
    if (this.#failures === 0) return ms * (0.9 + 0.2 * Math.random());
    return backoff({ baseMs: ms, maxMs: longestWaitMs, attempt: this.#failures, random: Math.random });
  }

  /**
   * @param most batches: of tenants that are never quiet there is always more
   * @returns whether the scheduler took what it was told
   */
  async #tell(signal: AbortSignal, most: number): Promise<boolean> {
    const { traffic, link, deadlineMs, log } = this.#options;
    for (let told = 0; told < most; told++) {
      const batch = traffic.batch(Date.now());
      if (batch.length === 0) return true;
      try {
        await link.reportTraffic(batch, { deadlineMs, signal });
      } catch (error) {
        if (this.#failures++ === 0 && !signal.aborted)
          log.warn({ err: error }, "the scheduler could not be told of traffic; it is kept and told later");
        return false;
      }
      traffic.acknowledge();
      this.#failures = 0;
    }
    return true;
  }
}
