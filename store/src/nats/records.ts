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
  const { id, headers } = headersOf(msg);
  return { seq: BigInt(seq), storedAt, id, subject: msg.subject, headers, data: msg.data };
}

/**
 * The record's own headers, and its id. The server's are left out: a record's are lower case and never begin with "nats-".
 * In one pass, since asking the library for each by its name looks through all of them each time.
 */
function headersOf(msg: Msg): Pick<StoredRecord, "id" | "headers"> {
  const headers: Record<string, string> = {};
  let id = "";
  for (const [name, values] of msg.headers ?? []) {
    if (name === MSG_ID) id = values[0] ?? "";
    else if (!/^nats-/i.test(name)) headers[name] = values[0] ?? "";
  }
  return { id, headers };
}
