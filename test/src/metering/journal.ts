/** The journal as any consumer of the stream finds it, and what must hold of it. */
import { fromBinary, fromJson } from "@bufbuild/protobuf";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, type MsgHdrs, headers as makeHeaders } from "@nats-io/transport-node";
import { fromDuration } from "@warren/common/time";
import { InstanceState, type Transition, TransitionSchema } from "@warren/proto/common";

export interface Message {
  readonly subject: string;
  readonly headers: MsgHdrs;
  readonly data: Uint8Array;
}

const stream = "WARREN_EVENTS";

/** Everything that the stream holds, in its order. */
export async function readStream(url: string): Promise<Message[]> {
  const connection = await connect({ servers: url });
  try {
    const manager = await jetstreamManager(connection);
    const { state } = await manager.streams.info(stream);
    const { name } = await manager.consumers.add(stream, {
      ack_policy: AckPolicy.None,
      deliver_policy: DeliverPolicy.All,
      inactive_threshold: 60_000_000_000,
    });
    const consumer = await jetstream(connection).consumers.get(stream, name);
    const messages: Message[] = [];
    while (messages.length < state.messages) {
      const batch = await consumer.fetch({ max_messages: 1_000, expires: 2_000 });
      let got = 0;
      for await (const { subject, headers, data } of batch) {
        messages.push({ subject, headers: headers ?? makeHeaders(), data });
        got++;
      }
      if (got === 0) break;
    }
    return messages;
  } finally {
    await connection.close();
  }
}

/** Everything once more, under ids that the server does not know: as after its window for repeats. */
export async function deliverAgain(url: string): Promise<number> {
  const messages = await readStream(url);
  const connection = await connect({ servers: url });
  try {
    const js = jetstream(connection);
    for (let i = 0; i < messages.length; i += 64) {
      await Promise.all(
        messages.slice(i, i + 64).map(({ subject, headers, data }) => {
          const own = makeHeaders();
          for (const name of headers.keys()) {
            if (!/^nats-/i.test(name)) own.append(name, headers.get(name));
          }
          return js.publish(subject, data, { headers: own });
        }),
      );
    }
    return messages.length;
  } finally {
    await connection.close();
  }
}

export interface Told {
  readonly id: string;
  readonly transition: Transition;
}

/** The transitions, each event once by its id, as DESIGN asks of a consumer. */
export function transitionsOf(messages: readonly Message[]): Told[] {
  const told = new Map<string, Told>();
  for (const { headers, data } of messages) {
    if (headers.get("ce-type") !== "dev.warren.transition") continue;
    const id = headers.get("ce-id");
    const transition = headers.get("content-type").startsWith("application/json")
      ? fromJson(TransitionSchema, JSON.parse(new TextDecoder().decode(data)))
      : fromBinary(TransitionSchema, data);
    told.set(id, { id, transition });
  }
  return [...told.values()];
}

/** What is wrong with them: a state entered twice, an end that is missing, an interval that cannot be. */
export function defectsOf(told: readonly Told[], ended: Iterable<string>, longestMs: number): string[] {
  const defects: string[] = [];
  const entered = new Map<string, string>();
  for (const { id, transition } of told) {
    const { instance, from, to, after } = transition;
    const ms = fromDuration(after, 0);
    if (!(ms >= 0 && ms <= longestMs)) defects.push(`${id}: it was ${ms} ms in ${InstanceState[from]}`);
    if (from === to) continue; // of modes, which may come again
    const key = `${instance?.id} ${InstanceState[to]}`;
    const before = entered.get(key);
    if (before) defects.push(`${key} was told as ${before} and as ${id}`);
    entered.set(key, id);
  }
  for (const instance of ended) {
    for (const state of ["READY", "EXITED"]) {
      if (!entered.has(`${instance} ${state}`)) defects.push(`${instance} never was told to be ${state}`);
    }
  }
  return defects;
}
