import { JetStreamApiCodes } from "@nats-io/jetstream";
import { LeaseLostError } from "../errors.ts";
import { SEAL_KEY } from "../limits.ts";
import { apiCode, type NatsLink, REQUEST_MS } from "./connection.ts";
import { STATE_PREFIX, STATE_STREAM } from "./streams.ts";

const SEAL_SUBJECT = STATE_PREFIX + SEAL_KEY;

/** The value of the state key `epoch`. */
interface Seal {
  readonly epoch: string;
  /** Tells our own seal from one of the same epoch by somebody else. */
  readonly nonce: string;
}

/** Epoch of the last seal; 0n when there is none. */
export async function sealedEpoch(link: NatsLink): Promise<bigint> {
  return BigInt((await readSeal(link))?.epoch ?? "0");
}

/**
 * Tries to append the seal of `epoch`: from then on every writer of an older epoch finds its expected sequence stale.
 * @returns false when somebody appended in between: try again
 * @throws LeaseLostError when a seal of this or a higher epoch stands there: somebody has taken over from us already,
 *   and sealing below it would disturb the rightful writer
 */
export function trySeal(link: NatsLink, epoch: bigint, nonce: string): Promise<boolean> {
  return link.guard(() => seal(link, epoch, nonce));
}

async function seal(link: NatsLink, epoch: bigint, nonce: string): Promise<boolean> {
  // The sequence is read before the seal: a seal written after that moves the sequence, and our append fails.
  const lastSequence = (await link.jsm.streams.info(STATE_STREAM)).state.last_seq;
  const last = await readSeal(link);
  if (last?.nonce === nonce) return true; // an earlier try got through, its answer did not
  if (last !== undefined && BigInt(last.epoch) >= epoch) {
    throw new LeaseLostError(`the state log is sealed by epoch ${last.epoch}, ours is ${epoch}`);
  }
  const value: Seal = { epoch: String(epoch), nonce };
  try {
    await link.js.publish(SEAL_SUBJECT, JSON.stringify(value), {
      expect: { streamName: STATE_STREAM, lastSequence },
      timeout: REQUEST_MS,
    });
    return true;
  } catch (error) {
    if (apiCode(error) === JetStreamApiCodes.StreamWrongLastSequence) return false;
    throw error;
  }
}

export function sealEpoch(data: Uint8Array): bigint {
  return BigInt(parseSeal(data).epoch);
}

async function readSeal(link: NatsLink): Promise<Seal | undefined> {
  try {
    const message = await link.jsm.streams.getMessage(STATE_STREAM, { last_by_subj: SEAL_SUBJECT });
    return message === null ? undefined : parseSeal(message.data);
  } catch (error) {
    if (apiCode(error) === JetStreamApiCodes.NoMessageFound) return undefined;
    throw error;
  }
}

function parseSeal(data: Uint8Array): Seal {
  return JSON.parse(new TextDecoder().decode(data)) as Seal;
}
