import { headers, type Msg, type MsgHdrs } from "@nats-io/transport-node";
import type { JournalRecord, StoredRecord } from "../store.ts";
import type { Delivery } from "./pull.ts";

export const MSG_ID = "Nats-Msg-Id";

/** A record's headers as NATS carries them; its id goes as `Nats-Msg-Id` beside the publish. */
export function recordHeaders(record: JournalRecord): MsgHdrs {
  const out = headers();
  for (const [name, value] of Object.entries(record.headers)) out.append(name, value);
  return out;
}

export function toStoredRecord(delivery: Delivery): StoredRecord {
  const { msg, seq, storedAt } = delivery;
  return {
    seq: BigInt(seq),
    storedAt,
    id: msgId(msg),
    subject: msg.subject,
    headers: ownHeaders(msg),
    data: msg.data,
  };
}

function msgId(msg: Msg): string {
  return msg.headers?.get(MSG_ID) ?? "";
}

/** Without the server's own: record headers are lower case and never begin with "nats-". */
function ownHeaders(msg: Msg): Record<string, string> {
  const own: Record<string, string> = {};
  for (const name of msg.headers?.keys() ?? []) {
    if (!/^nats-/i.test(name)) own[name] = msg.headers?.get(name) ?? "";
  }
  return own;
}
