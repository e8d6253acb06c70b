/**
 * Calls between processes over a network that loses, delays, doubles and reorders messages. One who calls hears either an
 * answer or, by its deadline, that there was none: whether the other side did it is then not known. A message may arrive
 * long after its sender has given up: the kernel goes on sending what a closed connection had in its buffer.
 */
import type { Actor } from "./actor.ts";
import type { Agenda } from "./agenda.ts";
import type { Rng } from "./rng.ts";

export interface Weather {
  /** Chances per message. */
  readonly lost: number;
  readonly doubled: number;
  /** Of being late by up to `lateMs`. */
  readonly late: number;
  readonly lateMs: number;
}

const calm: Weather = { lost: 0, doubled: 0, late: 0, lateMs: 0 };

/** A connection on which nothing comes through is given up by its pings after this long, ms. */
const pingMs = { least: 1_500, most: 4_000 };
/** A message held up by a partition is tried again so often, at most this many times. */
const resend = { everyMs: 400, most: 50 };

interface Pending {
  readonly from: Actor;
  readonly to: Actor;
  readonly finish: () => void;
}

export class Net {
  readonly #storms: Weather[] = [];
  readonly #blocked = new Map<string, number>();
  readonly #pending = new Set<Pending>();

  constructor(
    private readonly agenda: Agenda,
    private readonly rng: Rng,
  ) {}

  get #weather(): Weather {
    return this.#storms.at(-1) ?? calm;
  }

  /** For a while it is as bad as this. */
  storm(weather: Weather, ms: number): void {
    this.#storms.push(weather);
    this.agenda.after(ms, () => void this.#storms.splice(this.#storms.indexOf(weather), 1));
  }

  /** No message goes from one to the other until as many `unblock`s. */
  block(from: Actor, to: Actor): void {
    const link = `${from.name}>${to.name}`;
    this.#blocked.set(link, (this.#blocked.get(link) ?? 0) + 1);
    this.trouble(from);
    this.trouble(to);
  }

  unblock(from: Actor, to: Actor): void {
    const link = `${from.name}>${to.name}`;
    const left = (this.#blocked.get(link) ?? 1) - 1;
    if (left > 0) this.#blocked.set(link, left);
    else this.#blocked.delete(link);
  }

  isBlocked(from: Actor, to: Actor): boolean {
    return this.#blocked.size > 0 && this.#blocked.has(`${from.name}>${to.name}`);
  }

  /** Nothing passes in at least one direction, or one of them does not move. */
  isTroubled(a: Actor, b: Actor): boolean {
    return a.stopped || b.stopped || this.isBlocked(a, b) || this.isBlocked(b, a);
  }

  /** A process was stopped, or a link of it was cut: whoever waits notices after a while, if it lasts. */
  trouble(actor: Actor): void {
    for (const call of this.#pending) {
      if (call.from !== actor && call.to !== actor) continue;
      this.agenda.after(this.#ping(), () => {
        if (this.#pending.has(call) && this.isTroubled(call.from, call.to)) call.finish();
      });
    }
  }

  /** A process has died: its connections break. */
  died(actor: Actor): void {
    for (const call of [...this.#pending]) {
      if (call.to === actor) this.agenda.after(this.rng.between(0.2, 2), call.finish);
      if (call.from === actor) this.#pending.delete(call);
    }
  }

  /**
   * @param handle runs at the callee, once per copy of the message that arrives
   * @param done runs at the caller, exactly once if it lives: with the answer, or undefined when there was none
   */
  call<T>(
    from: Actor,
    to: Actor,
    timeoutMs: number,
    handle: (reply: (answer: T) => void) => void,
    done: (answer: T | undefined) => void,
  ): void {
    const answered = from.whileAlive(done);
    let open = true;
    const finish = (answer?: T): void => {
      if (!open) return;
      open = false;
      this.#pending.delete(pending);
      answered(answer);
    };
    const pending: Pending = { from, to, finish: () => finish() };
    this.#pending.add(pending);
    const silence = () => this.agenda.after(Math.min(timeoutMs, this.#ping()), () => finish());
    this.agenda.after(timeoutMs, () => finish());
    const reply = (answer: T): void => {
      if (!this.#carry(to, from, () => finish(answer))) silence();
    };
    const arrive = (): void => {
      if (!to.up) {
        this.agenda.after(this.rng.between(0.1, 1), () => finish()); // connection refused
        return;
      }
      if (to.stopped) silence();
      to.deliver(() => handle(to.whileAlive(reply)));
    };
    if (!this.#carry(from, to, arrive)) silence();
    if (this.#weather.doubled > 0 && this.rng.chance(this.#weather.doubled)) this.#carry(from, to, arrive);
  }

  /** A stream: its messages arrive in order, or not at all any more; what is held up by a partition comes after it. */
  stream<T>(
    from: Actor,
    to: Actor,
    isOpen: () => boolean,
    receive: (message: T) => void,
  ): (message: T) => void {
    const queue: { readonly at: number; readonly message: T }[] = [];
    let last = 0;
    const pump = (): void => {
      for (;;) {
        const first = queue[0];
        if (!first || !isOpen()) return;
        const wait = this.isBlocked(from, to) ? 100 : first.at - this.agenda.now;
        if (wait > 0) {
          this.agenda.after(wait, pump);
          return;
        }
        queue.shift();
        receive(first.message);
      }
    };
    return (message) => {
      last = Math.max(last, this.agenda.now + this.rng.between(0.1, 2) + this.#lateness());
      queue.push({ at: last, message });
      if (queue.length === 1) pump();
    };
  }

  #ping(): number {
    return this.rng.between(pingMs.least, pingMs.most);
  }

  #lateness(): number {
    const { late, lateMs } = this.#weather;
    return late > 0 && this.rng.chance(late) ? this.rng.between(0, lateMs) : 0;
  }

  /** @returns false when the message is lost, or held up so long that its sender notices */
  #carry(from: Actor, to: Actor, arrive: () => void): boolean {
    if (this.#weather.lost > 0 && this.rng.chance(this.#weather.lost)) return false;
    const isHeld = this.isBlocked(from, to);
    if (isHeld && this.rng.chance(0.7)) return false;
    const lateness = this.#lateness();
    const attempt = (left: number): void => {
      if (!this.isBlocked(from, to)) arrive();
      else if (left > 0) this.agenda.after(resend.everyMs, () => attempt(left - 1));
    };
    this.agenda.after(this.rng.between(0.1, 2) + lateness, () => attempt(resend.most));
    return !isHeld && lateness < pingMs.least;
  }
}
