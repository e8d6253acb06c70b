/** Keeps one watch of the scheduler's endpoints, and comes back when it breaks. */
import type { Logger } from "@warren/common/log";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { backoff, pause } from "@warren/common/time";
import type { WatchEndpointsResponse } from "@warren/proto/scheduler";
import type { SchedulerLink } from "./link.ts";

export interface WatcherOptions {
  readonly link: Pick<SchedulerLink, "watch">;
  readonly log: Logger;
  readonly onMessage: (message: WatchEndpointsResponse) => void;
  /** A watch stands: its first message has come. */
  readonly onUp: () => void;
  readonly onDown: () => void;
  /** A watch that says nothing for so long, not even a heartbeat, is made anew. */
  readonly silenceMs: number;
  /** Bounds of the jittered delay before a watch is made anew. */
  readonly retryMs: { readonly base: number; readonly max: number };
}

export class Watcher {
  readonly #options: WatcherOptions;
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;
  #up = false;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  /** Whether a watch stands. */
  get up(): boolean {
    return this.#up;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { log, retryMs } = this.#options;
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      const error = await this.#watch();
      if (this.#stop.signal.aborted) break;
      if (this.#up) {
        this.#up = false;
        attempt = 0;
        this.#options.onDown();
      }
      if (attempt === 0) {
        log.warn(
          { err: error },
          "the watch of endpoints broke; routing by what is known until it stands again",
        );
      }
      await pause(
        backoff({ baseMs: retryMs.base, maxMs: retryMs.max, attempt, random: Math.random }),
        this.#stop.signal,
      );
    }
  }

  /** One watch, until it ends. @returns why */
  async #watch(): Promise<unknown> {
    const { link, onMessage, onUp, silenceMs, log } = this.#options;
    const own = new AbortController();
    const signal = AbortSignal.any([own.signal, this.#stop.signal]);
    const giveUp = () =>
      own.abort(rpcError(Code.DeadlineExceeded, `the scheduler has said nothing for ${silenceMs} ms`));
    let silent = setTimeout(giveUp, silenceMs);
    try {
      for await (const message of link.watch({ signal })) {
        clearTimeout(silent);
        silent = setTimeout(giveUp, silenceMs);
        onMessage(message);
        if (!this.#up) {
          this.#up = true;
          log.info("the watch of endpoints stands");
          onUp();
        }
      }
      return new Error("the scheduler ended the watch");
    } catch (error) {
      return error;
    } finally {
      clearTimeout(silent);
      own.abort(); // a call is not cancelled by leaving its loop
    }
  }
}
