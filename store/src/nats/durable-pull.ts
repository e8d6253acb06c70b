import { AckPolicy, type ConsumerConfig, DeliverPolicy, JetStreamApiCodes } from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import { StoreMismatchError } from "../errors.ts";
import { apiCode, type NatsLink, REQUEST_MS, unavailable } from "./connection.ts";
import { type Delivery, pull } from "./pull.ts";

export interface DurablePullOptions {
  readonly stream: string;
  readonly name: string;
  readonly filter: string | undefined;
  /** Where a consumer that does not exist yet starts. */
  readonly after: number | "end";
  readonly batch: number;
  readonly ackWaitMs: number;
}

const WAIT_MS = 5000;
/** Deliveries that may be unacknowledged before the server sends no more. */
const MAX_ACK_PENDING = 4096;

const ACK = "+ACK";
const NAK = "-NAK";

/**
 * Reads through a durable consumer that the server keeps, with each record acknowledged by itself. (Acknowledging "all
 * up to here" would be cheaper and wrong: after a restart newer records come before the redelivery of older ones, and
 * would acknowledge those unread.)
 */
export class DurablePull {
  /** Sequences that this reader has handed out and that are neither acknowledged nor given up. */
  readonly #held = new Map<number, Delivery>();
  #ready = false;

  constructor(
    readonly link: NatsLink,
    readonly options: DurablePullOptions,
  ) {}

  /**
   * The next records, at most `batch`. With `wait`, up to some seconds until there is one.
   * @throws StoreMismatchError when the consumer exists and reads something else
   */
  async next(signal: AbortSignal, wait: boolean): Promise<readonly Delivery[]> {
    if (!this.#ready) await this.#ensure();
    this.#ready = true;
    const found = await this.#pull(this.options.batch, 0, signal);
    if (found.length > 0 || !wait || signal.aborted || !this.#ready) return found;
    const first = await this.#pull(1, WAIT_MS, signal);
    if (first.length === 0 || this.options.batch === 1 || signal.aborted) return first;
    return [...first, ...(await this.#pull(this.options.batch - 1, 0, signal))];
  }

  /**
   * Waits until the server has taken note of each.
   * @throws StoreUnavailableError when it has not of some; they may come again, or be acknowledged again
   */
  async acknowledge(deliveries: readonly Delivery[]): Promise<void> {
    const results = await Promise.allSettled(
      deliveries.map(async ({ msg, seq }) => {
        await this.link.guard(() => this.link.nc.request(msg.reply ?? "", ACK, { timeout: REQUEST_MS }));
        this.#held.delete(seq);
      }),
    );
    const failure = results.find((result) => result.status === "rejected");
    if (failure === undefined) return;
    // No longer held: should the server deliver them again, they are handed out again.
    for (const { seq } of deliveries) this.#held.delete(seq);
    throw unavailable(this.link, `acknowledging ${deliveries.length} records`, failure.reason);
  }

  /** Gives back what is not acknowledged, so that the next reader need not wait for it. */
  async close(): Promise<void> {
    if (!this.link.connected) return;
    for (const { msg } of this.#held.values()) this.link.nc.publish(msg.reply ?? "", NAK);
    this.#held.clear();
    try {
      await this.link.nc.flush();
    } catch {
      // The connection went away: they come again after the consumer's ack_wait.
    }
  }

  async #pull(batch: number, waitMs: number, signal: AbortSignal): Promise<readonly Delivery[]> {
    const { stream, name } = this.options;
    const { deliveries, end } = await pull(this.link, { stream, consumer: name, batch, waitMs, signal });
    if (end === "lost") this.#ready = false;
    // A caller slower than ack_wait is sent again what it still holds: it has that already.
    const fresh = deliveries.filter(({ seq }) => !this.#held.has(seq));
    for (const delivery of deliveries) this.#held.set(delivery.seq, delivery);
    return fresh;
  }

  async #ensure(): Promise<void> {
    const { stream, name, filter } = this.options;
    const existing = await this.#existing();
    if (existing === undefined) {
      await this.link.guard(() => this.link.jsm.consumers.add(stream, this.#config()));
      return;
    }
    if (existing.ack_policy !== AckPolicy.Explicit || (existing.filter_subject || undefined) !== filter) {
      throw new StoreMismatchError(
        `the consumer ${name} of ${stream} on ${this.link.url} has ack_policy ${existing.ack_policy} and filter_subject ` +
          `"${existing.filter_subject ?? ""}", needs explicit and "${filter ?? ""}": it is left as it is; use another name`,
      );
    }
  }

  async #existing(): Promise<ConsumerConfig | undefined> {
    try {
      return (
        await this.link.guard(() => this.link.jsm.consumers.info(this.options.stream, this.options.name))
      ).config;
    } catch (error) {
      if (apiCode(error) === JetStreamApiCodes.ConsumerNotFound) return undefined;
      throw error;
    }
  }

  #config(): Partial<ConsumerConfig> {
    const { name, filter, after, ackWaitMs } = this.options;
    const start: Partial<ConsumerConfig> =
      after === "end"
        ? { deliver_policy: DeliverPolicy.New }
        : after === 0
          ? { deliver_policy: DeliverPolicy.All }
          : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: after + 1 };
    return {
      ...start,
      durable_name: name,
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(ackWaitMs),
      max_ack_pending: MAX_ACK_PENDING,
      filter_subject: filter,
    };
  }
}
