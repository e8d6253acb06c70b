/** Tells the scheduler of uses, in batches; one at a time, so that an older word never overtakes a newer one. */
import type { Logger } from "@warren/common/log";
import { backoff } from "@warren/common/time";
import type { SchedulerLink } from "./link.ts";
import type { EndpointTable } from "./table.ts";

export interface ToucherOptions {
  readonly table: EndpointTable;
  readonly link: Pick<SchedulerLink, "touch">;
  readonly log: Logger;
  /** Between two batches that nobody waits for. */
  readonly intervalMs: number;
  /** Most instances in a batch. */
  readonly maxBatch: number;
  /** Deadline of one batch. */
  readonly deadlineMs: number;
}

export class Toucher {
  readonly #options: ToucherOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sending: Promise<void> | undefined;
  #urgent = false;
  #failures = 0;
  #stopped = false;

  constructor(options: ToucherOptions) {
    this.#options = options;
  }

  /** Begins to tell. */
  start(): void {
    this.#arm();
  }

  /** Somebody waits: tell as soon as the batch on its way has arrived. */
  soon(): void {
    this.#urgent = true;
    if (!this.#sending && !this.#stopped) this.#run();
  }

  /** A scheduler answers again: forget the failures, tell it all. */
  again(): void {
    this.#failures = 0;
    this.#options.table.tellAll();
    this.soon();
  }

  /** Tells the last of it, within one batch's deadline, and ends. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#sending;
    if (this.#options.table.changed && this.#failures === 0) await this.#send();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const { intervalMs } = this.#options;
    const wait =
      this.#failures === 0
        ? intervalMs
        : backoff({ baseMs: intervalMs, maxMs: 5_000, attempt: this.#failures, random: Math.random });
    this.#timer = setTimeout(() => this.#run(), wait);
  }

  #run(): void {
    clearTimeout(this.#timer);
    this.#sending = this.#drain().finally(() => {
      this.#sending = undefined;
      this.#arm();
    });
  }

  async #drain(): Promise<void> {
    do {
      this.#urgent = false;
      if (this.#options.table.changed) await this.#send();
    } while (this.#urgent && this.#failures === 0 && !this.#stopped);
  }

  async #send(): Promise<void> {
    const { table, link, maxBatch, deadlineMs, log } = this.#options;
    const batch = table.take(maxBatch);
    try {
      await link.touch(batch, { deadlineMs });
      table.told(batch);
      this.#failures = 0;
    } catch (error) {
      table.failed(batch);
      if (this.#failures++ === 0) log.warn({ err: error }, "the scheduler could not be told of uses");
    }
  }
}
