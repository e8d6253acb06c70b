/** A process of the system under test: it can crash, be started again, and be stopped (SIGSTOP) for a while. */
import type { Agenda } from "./agenda.ts";

/** What takes long anyway takes at most so much longer on a slow host. */
const mostSlownessMs = 3_000;

export class Actor {
  /** Its process runs, or is stopped. */
  up = true;
  /** SIGSTOP: what comes waits until it goes on. */
  stopped = false;
  /** Its host is slow: everything that it does takes so many times as long. */
  slowness = 1;
  /** Which run of its process this is: what an earlier one began is nothing to a later one. */
  #life = 0;
  #inbox: (() => void)[] = [];

  constructor(
    readonly name: string,
    protected readonly agenda: Agenda,
  ) {}

  /** Runs it now, or as soon as the process goes on; never in a later life. */
  deliver(run: () => void): void {
    if (!this.up) return;
    if (!this.stopped) {
      run();
      return;
    }
    const life = this.#life;
    this.#inbox.push(() => {
      if (life === this.#life) run();
    });
  }

  /** A timer of this process: gone with it. */
  after(ms: number, run: () => void): void {
    const life = this.#life;
    this.agenda.after(Math.min(ms * this.slowness, ms + mostSlownessMs), () => {
      if (life === this.#life) this.deliver(run);
    });
  }

  every(ms: number, run: () => void): void {
    this.after(ms, () => {
      run();
      this.every(ms, run);
    });
  }

  /** For what may be called back after the process has died. */
  whileAlive<A extends unknown[]>(run: (...args: A) => void): (...args: A) => void {
    const life = this.#life;
    return (...args) => {
      if (life === this.#life) this.deliver(() => run(...args));
    };
  }

  /** kill -9 */
  crash(): void {
    this.#life++;
    this.up = false;
    this.stopped = false;
    this.#inbox = [];
  }

  pause(): void {
    if (this.up) this.stopped = true;
  }

  resume(): void {
    if (!this.stopped) return;
    this.stopped = false;
    const inbox = this.#inbox;
    this.#inbox = [];
    for (const run of inbox) {
      if (this.stopped) this.#inbox.push(run);
      else run();
    }
  }
}
