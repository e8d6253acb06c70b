/** The imperative shell around the core: feeds it inputs, performs its effects, keeps its calls and its clock. */
import { ulid } from "@warren/common/ids";
import type { Logger } from "@warren/common/log";
import { ConnectError } from "@warren/common/rpc/errors";
import type { Clock } from "@warren/common/time";
import type { Agents } from "./agents.ts";
import type { BackupBytes } from "./backup-bytes.ts";
import type { CoreConfig } from "./core/config.ts";
import { Core } from "./core/core.ts";
import type { Answer, Effect } from "./core/effects.ts";
import type { Input } from "./core/inputs.ts";
import type { Moment } from "./core/model.ts";
import type { Refusal } from "./core/refusal.ts";
import type { Publisher } from "./publisher.ts";
import { entryOf } from "./records.ts";
import { toRpcError } from "./refusals.ts";
import type { StateWriter } from "./state-writer.ts";
import type { Watchers } from "./watchers.ts";

/** So often the core is told that time has passed, in ms. */
const tickMs = 50;

/** Callers hear of the leader instead (services/led.ts). */
const superseded: Refusal = {
  kind: "join-again",
  message: "this scheduler leads no more: ask its successor",
};

export interface EngineOptions {
  readonly config: CoreConfig;
  readonly epoch: bigint;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether this scheduler may command at this moment; from the first no on it is never asked again. */
  readonly holds: () => boolean;
  readonly agents: Agents;
  readonly backups: BackupBytes;
  readonly publisher: Publisher;
  readonly writer: StateWriter;
  readonly watchers: Watchers;
  /** Told after each input how long the core took, in ms. */
  readonly onDecided: (input: Input["type"], ms: number) => void;
}

interface Call {
  readonly granted: (answer: Answer) => void;
  readonly refused: (refusal: Refusal) => void;
}

export class Engine {
  readonly core: Core;
  readonly #options: EngineOptions;
  readonly #calls = new Map<string, Call>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #lastCall = 0;
  #stopped = false;

  constructor(options: EngineOptions) {
    this.#options = options;
    const { config, epoch, clock } = options;
    this.core = new Core({ config, epoch, since: clock.monotonic(), random: Math.random, newId: ulid });
  }

  start(): void {
    this.#timer = setInterval(() => this.feed({ type: "tick" }), tickMs);
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
    for (const { refused } of this.#calls.values()) refused(superseded);
    this.#calls.clear();
  }

  now(): Moment {
    return { mono: this.#options.clock.monotonic(), wall: this.#options.clock.now() };
  }

  /** Without effect once this scheduler leads no more: what would be decided is another's to decide. */
  feed(input: Input): void {
    if (this.#stopped || !this.#options.holds()) return;
    const at = this.now();
    const effects = this.core.step(input, at);
    this.#options.onDecided(input.type, this.#options.clock.monotonic() - at.mono);
    for (const effect of effects) this.#perform(effect, at);
  }

  /**
   * Feeds an input that the core answers.
   * @throws ConnectError as the core refuses
   */
  ask(make: (call: string) => Input): Promise<Answer> {
    if (this.#stopped) return Promise.reject(toRpcError(superseded));
    const call = `c${++this.#lastCall}`;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { granted: resolve, refused: (refusal) => reject(toRpcError(refusal)) });
      this.feed(make(call));
    });
  }

  /** Like {@link ask}, for Ensure: gives the place in the queue back when the caller goes away. */
  async ensure(
    tenant: string,
    deadline: number,
    signal: AbortSignal,
  ): Promise<Extract<Answer, { kind: "ensured" }>> {
    let id = "";
    const cancel = () => {
      this.feed({ type: "cancel", call: id, tenant });
      this.#calls.get(id)?.refused({ kind: "deadline", tenant, what: "the caller went away" });
      this.#calls.delete(id);
    };
    signal.addEventListener("abort", cancel, { once: true });
    try {
      const answer = await this.ask((call) => {
        id = call;
        return { type: "ensure", call, tenant, deadline };
      });
      return answer as Extract<Answer, { kind: "ensured" }>;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /** What is to be brought back comes first. */
  async #start(effect: Extract<Effect, { type: "start" }>): Promise<Input> {
    const { agents, backups } = this.#options;
    try {
      await backups.restore(effect);
    } catch (error) {
      const message = `a volume could not be brought back: ${ConnectError.from(error).rawMessage}`;
      const outcome = { kind: "refused", message, elsewhere: true } as const;
      return { type: "started", instance: effect.ref.id, outcome };
    }
    return agents.start(effect);
  }

  #take(call: string): Call | undefined {
    const known = this.#calls.get(call);
    this.#calls.delete(call);
    return known;
  }

  #perform(effect: Effect, at: Moment): void {
    const { agents, backups, publisher, writer, watchers, log } = this.#options;
    switch (effect.type) {
      case "persist":
        writer.append(entryOf(effect.write), effect.failed === undefined).then(
          () => effect.durable && this.feed(effect.durable),
          (error: Error) => {
            log.warn({ err: error }, "not persisted");
            if (effect.failed) this.feed(effect.failed);
          },
        );
        return;
      case "start":
        void this.#start(effect).then((input) => {
          if (input.type === "started" && input.outcome.kind !== "answered") {
            log.warn(
              { instance: effect.ref.id, tenant: effect.ref.tenant, node: effect.ref.node },
              input.outcome.message,
            );
          }
          this.feed(input);
        });
        return;
      case "stop":
        void agents.stop(effect).then((input) => this.feed(input));
        return;
      case "freeze":
        void agents.freeze(effect).then((input) => this.feed(input));
        return;
      case "thaw":
        void agents.thaw(effect).then((input) => this.feed(input));
        return;
      case "backup-volume":
        void backups.backUp(effect).then((input) => this.feed(input));
        return;
      case "remove-volume":
        void backups.remove(effect).then((input) => this.feed(input));
        return;
      case "answer":
        this.#take(effect.call)?.granted(effect.answer);
        return;
      case "refuse":
        this.#take(effect.call)?.refused(effect.refusal);
        return;
      case "endpoints":
        watchers.deliver(effect.message, effect.to);
        return;
      case "event":
        publisher.publish(effect, at.wall);
    }
  }
}
