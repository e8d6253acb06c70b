/** What an instance says of itself, and whether it still serves: its channel and its liveness, while it has them. */
import type { Logger } from "@warren/common/log";
import { loopback } from "./address.ts";
import { type Channel, openChannel } from "./channel.ts";
import { socketPath, usesChannel } from "./launch.ts";
import type { Mechanism } from "./mechanism.ts";
import type { InstanceRecord } from "./records.ts";
import { type LivenessWatch, watchLiveness } from "./watch.ts";

export interface ContactHandlers {
  /** It said that it is ready. Must be on disk when this returns: the tenant does not say it again. */
  onReady(): void;
  /** Told once, with one sentence of what was seen last. */
  onUnhealthy(message: string): void;
  /** Whether it is frozen, or on the way to it. */
  isPaused(): boolean;
}

export class Contact {
  readonly #saidReady = new AbortController();
  #channel: Channel | undefined;
  #watch: LivenessWatch | undefined;
  #unwatch = new AbortController();

  constructor(
    private readonly m: Mechanism,
    private readonly log: Logger,
    private readonly handlers: ContactHandlers,
  ) {}

  /** Aborts when the tenant says that it is ready. */
  get saidReady(): AbortSignal {
    return this.#saidReady.signal;
  }

  /** Opens the tenant's line to the agent, if its spec asks for one. @throws Error when it cannot be opened */
  open(record: InstanceRecord): void {
    if (record.saidReady) this.#saidReady.abort();
    if (!usesChannel(record)) return;
    const { uid, ref } = record;
    this.#channel = openChannel({
      path: socketPath(this.m, ref.id),
      owner: uid === undefined ? undefined : { uid, gid: uid },
      log: this.log,
      onReady: () => {
        this.handlers.onReady();
        this.#saidReady.abort();
      },
      onHeartbeat: () => this.#watch?.beat(),
      onRefused: (why) => this.m.metrics.refusedMessages.inc({ why }),
    });
  }

  /**
   * Watches that it serves, if its spec asks for that.
   * @param readyForMs how long it has been ready
   */
  watch({ liveness, port, address, readiness }: InstanceRecord, readyForMs: number): void {
    this.unwatch();
    if (!liveness) return;
    this.#unwatch = new AbortController();
    const { isPaused, onUnhealthy } = this.handlers;
    this.#watch = watchLiveness(
      {
        target: { address: address ?? loopback, port, hostName: readiness.hostName },
        policy: liveness,
        readyForMs,
        isPaused,
        onUnhealthy,
        clock: this.m.clock,
      },
      AbortSignal.any([this.#unwatch.signal, this.m.signal]),
    );
  }

  unwatch(): void {
    this.#unwatch.abort();
    this.#watch = undefined;
  }

  close(): void {
    this.unwatch();
    this.#channel?.close();
  }
}
