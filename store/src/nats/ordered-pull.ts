import { AckPolicy, type ConsumerConfig, DeliverPolicy, JetStreamApiCodes } from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import { pause } from "@warren/common/time";
import { StoreMismatchError } from "../errors.ts";
import { apiCode, type NatsLink, REQUEST_MS, unavailable } from "./connection.ts";
import { type Delivery, pull } from "./pull.ts";

export interface OrderedPullOptions {
  readonly stream: string;
  /** Only this subject (may have wildcards). */
  readonly filter?: string;
  /** Start after this sequence, at the end of the stream, or with the last message of each subject. */
  readonly after: number | "end" | "last-per-subject";
  readonly batch: number;
  /** The consumer has this name, lasts, and knows what was acknowledged. Absent: one without either. */
  readonly durable?: string;
}

/** The server forgets a consumer without a name after that long without a pull. */
const INACTIVE_MS = 60_000;
const WAIT_MS = 5000;
/** After that long without an acknowledgement the server sends again; what has been read is then dropped here. */
const ACK_WAIT_MS = 30_000;
/** Deliveries that may be unacknowledged before the server sends no more: some batches. */
const MAX_ACK_PENDING = 8192;
/** Tells our own consumers from those that somebody else has given the name, and that are not ours to delete. */
const DESCRIPTION = "read by Warren, which remembers its position itself";
/** Before a consumer that was lost is made anew, up to so long: of two readers with one name each then has its turns. */
const RIVAL_MS = 200;

/**
 * Reads a stream strictly in order, with nothing lost, through a consumer that it makes anew behind the last
 * message it has seen whenever the consumer's own count shows a gap, or the consumer or the connection is gone.
 *
 * With a name (`durable`) the server keeps the consumer, and its position is what monitoring sees. It never is where reading
 * goes on: the consumer is made anew at the reader's own position at each start too. Since what was delivered is
 * therefore in order, and is committed in order, one acknowledgement of the last stands for all before it.
 *
 * Should two readers have one name, each takes the consumer from the other. Then a delivery may be of the other's, whose
 * count happens to fit, and nothing may come because the other is at the end: where a sequence does not follow directly,
 * and where nothing comes, the consumer must still be ours.
 */
export class OrderedPull {
  #after: OrderedPullOptions["after"];
  #consumer: string | undefined;
  #consumerSeq = 0;
  #pending = Number.POSITIVE_INFINITY;
  /** In the description of the consumers that this reader makes. */
  readonly #mark = crypto.randomUUID();

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
   * @throws StoreMismatchError when the name is another's
   * @throws whatever making the consumer throws; call again to go on
   */
  async next(signal: AbortSignal, wait: boolean): Promise<readonly Delivery[]> {
    const found = await this.#pull(this.options.batch, 0, signal);
    if (found.length > 0 || !wait || signal.aborted || this.#consumer === undefined) return found;
    if (this.#pending > 0 && !(await this.#keep(signal))) return [];
    const first = await this.#pull(1, WAIT_MS, signal);
    if (first.length === 0) await this.#keep(signal);
    if (first.length === 0 || this.options.batch === 1) return first;
    return [...first, ...(await this.#pull(this.options.batch - 1, 0, signal))];
  }

  /**
   * With a `durable`: waits until the server has taken note of this one and all before it.
   * @throws StoreUnavailableError when it has not
   */
  async acknowledge({ msg }: Delivery): Promise<void> {
    if (this.options.durable === undefined) return;
    try {
      await this.link.guard(() => this.link.nc.request(msg.reply ?? "", "+ACK", { timeout: REQUEST_MS }));
    } catch (cause) {
      throw unavailable(this.link, "acknowledging records", cause);
    }
  }

  /** Tells the server that a consumer without a name is done with; it would find out by itself in a minute. */
  async close(): Promise<void> {
    const consumer = this.#consumer;
    this.#consumer = undefined;
    if (consumer === undefined || this.options.durable !== undefined || !this.link.connected) return;
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
    const inOrder = this.#inOrder(result.deliveries);
    if (result.end !== "done") this.#consumer = undefined;
    if (this.#hasGap(inOrder) && !(await this.#keep(signal))) return [];
    const last = inOrder.at(-1);
    if (last) {
      this.#after = last.seq;
      this.#pending = last.pending;
    }
    return inOrder;
  }

  /** Those up to the first that our consumer has not delivered next, without what was read before. */
  #inOrder(deliveries: readonly Delivery[]): Delivery[] {
    const inOrder: Delivery[] = [];
    let after = this.#after;
    for (const delivery of deliveries) {
      if (delivery.consumerSeq !== this.#consumerSeq + 1) {
        this.#consumer = undefined;
        break;
      }
      this.#consumerSeq = delivery.consumerSeq;
      // Sent again, since its acknowledgement came late or not yet; the next one covers it.
      if (typeof after === "number" && delivery.seq <= after) continue;
      after = delivery.seq;
      inOrder.push(delivery);
    }
    return inOrder;
  }

  #hasGap(deliveries: readonly Delivery[]): boolean {
    let before = this.#after;
    return deliveries.some(({ seq }) => {
      const follows = typeof before === "number" && seq === before + 1;
      before = seq;
      return !follows;
    });
  }

  /**
   * Whether what came, or did not come, is our consumer's word: if it is ours after a pull, it was before, since one that
   * another made has another description. If not, it is to be made anew.
   */
  async #keep(signal: AbortSignal): Promise<boolean> {
    const { stream, durable } = this.options;
    if (durable === undefined || signal.aborted) return true;
    try {
      const { config } = await this.link.guard(() => this.link.jsm.consumers.info(stream, durable));
      if (config.description === this.#description) return true;
    } catch (error) {
      if (apiCode(error) !== JetStreamApiCodes.ConsumerNotFound) {
        this.#consumer = undefined;
        throw error;
      }
    }
    this.#consumer = undefined;
    await pause(Math.random() * RIVAL_MS, signal);
    return false;
  }

  get #description(): string {
    return `${DESCRIPTION} (${this.#mark})`;
  }

  async #create(): Promise<string> {
    const { stream, filter, durable } = this.options;
    if (durable !== undefined) await this.#deleteOwn(durable);
    const info = await this.link.guard(() =>
      this.link.jsm.consumers.add(stream, {
        ...startAt(this.#after),
        filter_subject: filter,
        ...(durable === undefined ? ephemeral : lasting(durable, this.#description)),
      }),
    );
    // From "end", the position must be fixed now: a consumer made anew later must not skip what came in between.
    if (this.#after === "end") this.#after = info.delivered.stream_seq;
    this.#consumerSeq = 0;
    this.#pending = info.num_pending;
    return info.name;
  }

  async #deleteOwn(name: string): Promise<void> {
    const { stream } = this.options;
    try {
      const { config } = await this.link.guard(() => this.link.jsm.consumers.info(stream, name));
      if (!config.description?.startsWith(DESCRIPTION)) {
        throw new StoreMismatchError(
          `the consumer ${name} of ${stream} on ${this.link.url} is not this reader's: it is left as it is; use another name`,
        );
      }
      await this.link.guard(() => this.link.jsm.consumers.delete(stream, name));
    } catch (error) {
      if (apiCode(error) !== JetStreamApiCodes.ConsumerNotFound) throw error;
    }
  }
}

const ephemeral: Partial<ConsumerConfig> = {
  ack_policy: AckPolicy.None,
  inactive_threshold: nanos(INACTIVE_MS),
  mem_storage: true,
  num_replicas: 1,
};

const lasting = (name: string, description: string): Partial<ConsumerConfig> => ({
  durable_name: name,
  description,
  ack_policy: AckPolicy.All,
  ack_wait: nanos(ACK_WAIT_MS),
  max_ack_pending: MAX_ACK_PENDING,
});

function startAt(after: OrderedPullOptions["after"]): Partial<ConsumerConfig> {
  if (after === "end") return { deliver_policy: DeliverPolicy.New };
  if (after === "last-per-subject") return { deliver_policy: DeliverPolicy.LastPerSubject };
  return after === 0
    ? { deliver_policy: DeliverPolicy.All }
    : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: after + 1 };
}
