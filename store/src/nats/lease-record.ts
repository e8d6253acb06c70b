import { JetStreamApiCodes } from "@nats-io/jetstream";
import { StoreMismatchError } from "../errors.ts";
import { apiCode, type NatsLink, REQUEST_MS } from "./connection.ts";
import { MSG_ID } from "./records.ts";
import { LEASE_STREAM, LEASE_SUBJECT } from "./streams.ts";

/** The one message of the lease's stream. Each renewal writes it anew, so its sequence is its revision. */
export interface LeaseRecord {
  readonly holder: string;
  readonly address: string;
  /** Decimal, since JSON has no 64-bit integers. */
  readonly epoch: string;
  /** Identity of the holder's locked state directory, if it has one. */
  readonly directoryId?: string;
  /** Given up by its holder: the next one need not wait. */
  readonly released: boolean;
}

export interface LeaseRevision {
  /** 0 when there is no record yet. */
  readonly revision: number;
  readonly record: LeaseRecord | undefined;
}

export async function readLease(link: NatsLink): Promise<LeaseRevision> {
  try {
    const message = await link.jsm.streams.getMessage(LEASE_STREAM, { last_by_subj: LEASE_SUBJECT });
    if (message !== null) return { revision: message.seq, record: parse(link, message.data) };
  } catch (error) {
    if (apiCode(error) !== JetStreamApiCodes.NoMessageFound) throw error;
  }
  // Emptied by an operator, perhaps: its sequence goes on all the same.
  return { revision: (await link.jsm.streams.info(LEASE_STREAM)).state.last_seq, record: undefined };
}

/**
 * Writes the record provided that `revision` is still the last. May be called again with the same `id`, when the answer
 * got lost.
 * @returns the new revision; undefined when somebody else has written
 */
export async function writeLease(
  link: NatsLink,
  record: LeaseRecord,
  revision: number,
  id: string,
  timeoutMs = REQUEST_MS,
): Promise<number | undefined> {
  try {
    const ack = await link.js.publish(LEASE_SUBJECT, JSON.stringify(record), {
      msgID: id,
      expect: { streamName: LEASE_STREAM, lastSequence: revision },
      timeout: Math.max(1, Math.min(REQUEST_MS, timeoutMs)),
    });
    return ack.seq;
  } catch (error) {
    if (apiCode(error) !== JetStreamApiCodes.StreamWrongLastSequence) throw error;
    const last = await link.jsm.streams.getMessage(LEASE_STREAM, { last_by_subj: LEASE_SUBJECT });
    return last?.header.get(MSG_ID) === id ? last.seq : undefined;
  }
}

function parse(link: NatsLink, data: Uint8Array): LeaseRecord {
  const text = new TextDecoder().decode(data);
  try {
    const value = JSON.parse(text) as LeaseRecord;
    BigInt(value.epoch);
    return value;
  } catch (cause) {
    throw new StoreMismatchError(
      `${LEASE_SUBJECT} on ${link.url} holds something that is no lease: ${text.slice(0, 80)}`,
      {
        cause,
      },
    );
  }
}
