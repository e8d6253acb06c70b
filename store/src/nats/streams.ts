import {
  DiscardPolicy,
  JetStreamApiCodes,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import { pause } from "@warren/common/time";
import { StoreMismatchError } from "../errors.ts";
import type { Deadline } from "../time.ts";
import { apiCode, type NatsLink, unavailable } from "./connection.ts";

export const EVENTS_STREAM = "WARREN_EVENTS";
export const STATE_STREAM = "WARREN_STATE";
export const LEASE_STREAM = "WARREN_LEASE";
export const BLOBS_BUCKET = "WARREN_BLOBS";
export const BLOBS_STREAM = `OBJ_${BLOBS_BUCKET}`;

export const STATE_PREFIX = "warren.state.";
export const LEASE_SUBJECT = "warren.lease";

/** What the operator chooses about the streams. All openers of one cell must agree. */
export interface StreamOptions {
  /** Copies of every stream: 1, 3 or 5, at most the servers of the cluster. Default 1. */
  readonly replicas?: number;
  /** How long events are kept, in milliseconds. Default 7 days. */
  readonly eventsMaxAgeMs?: number;
  /** Most events kept. Default 5 million. */
  readonly eventsMaxCount?: number;
  /** Most bytes of events kept; NATS sets them aside at once. Default 8 GiB. */
  readonly eventsMaxBytes?: number;
  /** How long a repeated message id is recognised, in milliseconds. Default 5 minutes. */
  readonly duplicateWindowMs?: number;
}

type WantedStream = Pick<StreamConfig, "name" | "subjects"> & Partial<StreamConfig>;

const NANOS = 1_000_000;

function common(options: StreamOptions, cell: string, what: string): Partial<StreamConfig> {
  return {
    // The cell stands in the description, so that two cells cannot share one NATS account by mistake.
    description: `Warren cell ${cell}: ${what}`,
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    num_replicas: options.replicas ?? 1,
    // The server keeps the ids of so much time in memory. Deadlines of appends are well below it.
    duplicate_window: (options.duplicateWindowMs ?? 5 * 60_000) * NANOS,
  };
}

/** The journal. Old events make room for new ones: what is refused here would stop the cluster. */
export function eventsStream(cell: string, options: StreamOptions): WantedStream {
  return {
    ...common(options, cell, "events"),
    name: EVENTS_STREAM,
    subjects: ["warren.events.>"],
    discard: DiscardPolicy.Old,
    max_age: (options.eventsMaxAgeMs ?? 7 * 24 * 3600 * 1000) * NANOS,
    max_msgs: options.eventsMaxCount ?? 5_000_000,
    max_bytes: options.eventsMaxBytes ?? 8 * 1024 ** 3,
  };
}

/** The state log: the last value of each key. Nothing of it is ever dropped, so what is too much is refused. */
export function stateStream(cell: string, options: StreamOptions, maxKeys: number): WantedStream {
  return {
    ...common(options, cell, "state"),
    name: STATE_STREAM,
    subjects: [`${STATE_PREFIX}>`],
    discard: DiscardPolicy.New,
    max_msgs_per_subject: 1,
    max_msgs: maxKeys,
  };
}

/** The lease has a stream of its own, since its renewals must not move the state log's last sequence. */
export function leaseStream(cell: string, options: StreamOptions): WantedStream {
  return {
    ...common(options, cell, "lease"),
    name: LEASE_STREAM,
    subjects: [LEASE_SUBJECT],
    discard: DiscardPolicy.Old,
    max_msgs_per_subject: 1,
  };
}

/** As the Object Store of the NATS clients lays it out, so that `nats object` works on it. */
export function blobsStream(cell: string, options: StreamOptions): WantedStream {
  return {
    ...common(options, cell, "blobs"),
    name: BLOBS_STREAM,
    subjects: [`$O.${BLOBS_BUCKET}.C.>`, `$O.${BLOBS_BUCKET}.M.>`],
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    allow_direct: true,
  };
}

const STREAM_NAME_IN_USE = 10058;

/**
 * Makes the stream if there is none, and compares every field we chose if there is one.
 * @throws StoreMismatchError naming each field that differs; the stream is left as it is
 * @throws StoreUnavailableError
 */
export async function ensureStream(link: NatsLink, wanted: WantedStream, deadline: Deadline): Promise<void> {
  for (;;) {
    try {
      verifyStream(link, wanted, await infoOrAdd(link, wanted));
      return;
    } catch (cause) {
      if (cause instanceof StoreMismatchError) throw cause;
      if (deadline.left <= 50) throw unavailable(link, `preparing the stream ${wanted.name}`, cause);
    }
    await pause(Math.min(100, deadline.left));
  }
}

async function infoOrAdd(link: NatsLink, wanted: WantedStream): Promise<StreamConfig> {
  try {
    return (await link.jsm.streams.info(wanted.name)).config;
  } catch (error) {
    if (apiCode(error) !== JetStreamApiCodes.StreamNotFound) throw error;
  }
  try {
    return (await link.jsm.streams.add(wanted)).config;
  } catch (error) {
    // Somebody made it in this moment, differently.
    if (apiCode(error) !== STREAM_NAME_IN_USE) throw error;
    return (await link.jsm.streams.info(wanted.name)).config;
  }
}

function verifyStream(link: NatsLink, wanted: WantedStream, actual: StreamConfig): void {
  const differences: string[] = [];
  for (const [field, want] of Object.entries(wanted)) {
    const have = (actual as unknown as Record<string, unknown>)[field];
    if (JSON.stringify(have) !== JSON.stringify(want)) {
      differences.push(`${field} is ${JSON.stringify(have)}, needs ${JSON.stringify(want)}`);
    }
  }
  if (differences.length === 0) return;
  throw new StoreMismatchError(
    `the stream ${wanted.name} on ${link.url} is not what this Warren needs: ${differences.join("; ")}. ` +
      "It is left as it is: change it with `nats stream edit`, give the options it was made with, or use another NATS account",
  );
}
