import { AckPolicy, type ConsumerConfig, DeliverPolicy } from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import type { NatsLink } from "./connection.ts";
import { type Delivery, pull } from "./pull.ts";

export interface OrderedPullOptions {
  readonly stream: string;
  /** Only this subject (may have wildcards). */
  readonly filter?: string;
  /** Start after this sequence, at the end of the stream, or with the last message of each subject. */
  readonly after: number | "end" | "last-per-subject";
  readonly batch: number;
}

/** The server forgets the consumer after that long without a pull. */
const INACTIVE_MS = 60_000;
const WAIT_MS = 5000;

/**
 * Reads a stream strictly in order, with nothing lost, through an ephemeral consumer that it makes anew behind the last
 * message it has seen whenever the consumer's own count shows a gap, or the consumer or the connection is gone.
 */
export class OrderedPull {
  #after: OrderedPullOptions["after"];
  #consumer: string | undefined;
  #consumerSeq = 0;
  #pending = Number.POSITIVE_INFINITY;

  constructor(
    readonly link: NatsLink,
    readonly options: OrderedPullOptions,
  ) {
    this.#after = options.after;
  }

  /** Messages that the stream had, after what this has read, when the server last answered. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * The next messages, at most `batch`. With `wait`, up to some seconds until there is one; none is a normal answer.
   * @throws whatever making the consumer throws; call again to go on
   */
  async next(signal: AbortSignal, wait: boolean): Promise<readonly Delivery[]> {
    const found = await this.#pull(this.options.batch, 0, signal);
    if (found.length > 0 || !wait || signal.aborted || this.#consumer === undefined) return found;
    const first = await this.#pull(1, WAIT_MS, signal);
    if (first.length === 0 || this.options.batch === 1) return first;
    return [...first, ...(await this.#pull(this.options.batch - 1, 0, signal))];
  }

  /** Tells the server that the consumer is done with; it would find out by itself in a minute. */
  async close(): Promise<void> {
    const consumer = this.#consumer;
    this.#consumer = undefined;
    if (consumer === undefined || !this.link.connected) return;
    try {
      await this.link.jsm.consumers.delete(this.options.stream, consumer);
    } catch {
      // The server removes it after INACTIVE_MS.
    }
  }

  async #pull(batch: number, waitMs: number, signal: AbortSignal): Promise<readonly Delivery[]> {
    this.#consumer ??= await this.#create();
    const { stream } = this.options;
    const result = await pull(this.link, { stream, consumer: this.#consumer, batch, waitMs, signal });
    const inOrder: Delivery[] = [];
    for (const delivery of result.deliveries) {
      if (delivery.consumerSeq !== this.#consumerSeq + 1) {
        this.#consumer = undefined;
        break;
      }
      this.#consumerSeq = delivery.consumerSeq;
      this.#after = delivery.seq;
      this.#pending = delivery.pending;
      inOrder.push(delivery);
    }
    if (result.end !== "done") this.#consumer = undefined;
    return inOrder;
  }

  async #create(): Promise<string> {
    const info = await this.link.guard(() =>
      this.link.jsm.consumers.add(this.options.stream, {
        ...startAt(this.#after),
        ack_policy: AckPolicy.None,
        filter_subject: this.options.filter,
        inactive_threshold: nanos(INACTIVE_MS),
        mem_storage: true,
        num_replicas: 1,
      }),
    );
    // From "end", the position must be fixed now: a consumer made anew later must not skip what came in between.
    if (this.#after === "end") this.#after = info.delivered.stream_seq;
    this.#consumerSeq = 0;
    this.#pending = info.num_pending;
    return info.name;
  }
}

function startAt(after: OrderedPullOptions["after"]): Partial<ConsumerConfig> {
  if (after === "end") return { deliver_policy: DeliverPolicy.New };
  if (after === "last-per-subject") return { deliver_policy: DeliverPolicy.LastPerSubject };
  return after === 0
    ? { deliver_policy: DeliverPolicy.All }
    : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: after + 1 };
}
