import { createInbox, type Msg, nanos } from "@nats-io/transport-node";
import { pause } from "@warren/common/time";
import type { NatsLink } from "./connection.ts";

/** One message as a consumer delivered it. */
export interface Delivery {
  readonly msg: Msg;
  /** Sequence in the stream. */
  readonly seq: number;
  /** When the stream took it, in ms since 1970 by the server's clock. */
  readonly storedAt: number;
  /** The consumer's own count of deliveries: without a gap, unless one got lost on the way. */
  readonly consumerSeq: number;
  /** Messages that the consumer has yet to deliver after this one. */
  readonly pending: number;
}

/**
 * How a pull ended: `done`, the server says so or the batch is full; `aborted`, by our signal; `lost`, the consumer or
 * the connection is gone and deliveries may be lost with it.
 */
export type PullEnd = "done" | "aborted" | "lost";

export interface PullResult {
  readonly deliveries: readonly Delivery[];
  readonly end: PullEnd;
}

export interface PullRequest {
  readonly stream: string;
  readonly consumer: string;
  readonly batch: number;
  /** How long the server waits for messages; 0: it sends those that there are, and ends. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

/**
 * Longer than the server's own end of a pull; after that we take its consumer for gone. Besides crashes this catches a
 * server that counts a message as pending which was deleted or replaced meanwhile, and waits for it without an end
 * (seen on 2.9.10).
 */
const SLACK_MS = 1000;
/** A pull that is lost at once, with nothing delivered, is not to be repeated in a tight loop. */
const LOST_PAUSE_MS = 50;

/**
 * One pull request to a JetStream consumer, with a definite end. The client library's `fetch` and `consume` keep
 * pulling ahead of their reader, recover on timers of their own (up to their whole `expires`) and leave what they had
 * prefetched unacknowledged; here nothing is in flight between two pulls.
 */
export async function pull(link: NatsLink, request: PullRequest): Promise<PullResult> {
  const { batch, waitMs } = request;
  const generation = link.generation;
  const stopped = new AbortController();
  const deliveries: Delivery[] = [];
  let end: PullEnd | undefined;
  const finish = (how: PullEnd) => {
    end ??= how;
    stopped.abort();
  };
  const inbox = createInbox();
  const subscription = link.nc.subscribe(inbox, {
    callback: (error, msg) => {
      const delivery = error === null ? toDelivery(msg) : undefined;
      if (delivery !== undefined) {
        deliveries.push(delivery);
        if (deliveries.length >= batch) finish("done");
      } else {
        const code = msg?.headers?.code ?? 0;
        if (code !== 100) finish(code === 404 || code === 408 ? "done" : "lost");
      }
    },
  });
  const timer = setTimeout(() => finish("lost"), waitMs + SLACK_MS);
  const aborted = () => finish("aborted");
  request.signal.addEventListener("abort", aborted, { once: true });
  if (request.signal.aborted) aborted();
  try {
    const body = waitMs === 0 ? { batch, no_wait: true } : { batch, expires: nanos(waitMs) };
    const subject = `${link.js.apiPrefix}.CONSUMER.MSG.NEXT.${request.stream}.${request.consumer}`;
    if (end === undefined) link.nc.publish(subject, JSON.stringify(body), { reply: inbox });
    await link.whenLost(generation, stopped.signal);
    finish("lost"); // unless it has ended otherwise
    // After an abort messages may be on their way still: draining takes them in, so that they can be given back.
    if (end === "aborted" && link.connected) await subscription.drain();
  } finally {
    clearTimeout(timer);
    request.signal.removeEventListener("abort", aborted);
    if (!subscription.isClosed()) subscription.unsubscribe();
  }
  if (end === "lost" && deliveries.length === 0) await pause(LOST_PAUSE_MS, request.signal);
  return { deliveries, end: end ?? "lost" };
}

/** `$JS.ACK.<stream>.<consumer>.<times>.<seq>.<consumer seq>.<time>.<pending>`, with domain and account first on newer servers. */
function toDelivery(msg: Msg): Delivery | undefined {
  const tokens = msg.reply?.split(".") ?? [];
  if (tokens[0] !== "$JS" || tokens[1] !== "ACK" || tokens.length < 9) return undefined;
  const offset = tokens.length === 9 ? 0 : 2;
  const seq = Number(tokens[5 + offset]);
  const consumerSeq = Number(tokens[6 + offset]);
  const storedAt = Math.floor(Number(tokens[7 + offset]) / 1e6);
  const pending = Number(tokens[8 + offset]);
  if (![seq, consumerSeq, storedAt, pending].every(Number.isSafeInteger)) return undefined;
  return { msg, seq, storedAt, consumerSeq, pending };
}
