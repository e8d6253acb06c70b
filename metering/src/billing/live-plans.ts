/**
 * The plans as the file has them now. It is looked at every few seconds rather than watched or at a signal: that
 * notices files that are written in place, renamed over and swapped behind a link (as Kubernetes does) alike, and needs
 * nobody who knows the process. A file that is broken or gone leaves the plans as they were, and is told of.
 */
import { statSync } from "node:fs";
import type { Logger } from "@warren/common/log";
import type { Plans } from "./plan.ts";
import { readPlans } from "./read-plans.ts";

export class LivePlans implements Disposable {
  readonly #listeners = new Set<() => void>();
  readonly #timer: ReturnType<typeof setInterval>;
  #current: Plans;
  #seen: string;
  #broken = false;

  private constructor(
    private readonly path: string,
    private readonly log: Logger,
    everyMs: number,
  ) {
    this.#seen = fingerprint(path);
    this.#current = readPlans(path);
    this.#timer = setInterval(() => this.look(), everyMs);
    this.#timer.unref();
  }

  /**
   * @param everyMs between two looks
   * @throws ConfigError when the file is broken or not there
   */
  static open(path: string, { log, everyMs = 5_000 }: { log: Logger; everyMs?: number }): LivePlans {
    return new LivePlans(path, log, everyMs);
  }

  get current(): Plans {
    return this.#current;
  }

  /** The file is broken or gone, and the plans are those of an earlier one. */
  get broken(): boolean {
    return this.#broken;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Reads the file if it is another one than at the last look. */
  look(): void {
    const seen = fingerprint(this.path);
    if (seen === this.#seen) return;
    this.#seen = seen;
    try {
      this.#current = readPlans(this.path);
      this.#broken = false;
    } catch (error) {
      this.#broken = true;
      this.log.warn(
        { err: error },
        "the plans file has changed and cannot be used: the plans before it go on",
      );
      return;
    }
    this.log.info({ plans: [...this.#current.plans.keys()] }, "the plans were read again");
    for (const listener of this.#listeners) listener();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Of the file behind all links; "" where there is none. */
function fingerprint(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat ? `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs}` : "";
}
