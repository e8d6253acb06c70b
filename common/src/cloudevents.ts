/**
 * Warren's events as CloudEvents 1.0 in binary mode: attributes in headers, the payload as protojson. The same record
 * travels through NATS and through the embedded journal.
 */
import { create, type DescMessage, fromJson, toJson } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "@warren/proto/common";
import { fromTimestamp, toTimestamp } from "./time.ts";

/** What a journal stores. */
export interface EventRecord {
  readonly id: string;
  readonly subject: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly data: Uint8Array;
}

export const eventSubjectPrefix = "warren.events";

/** Token that stands for the tenant where there is none. */
export const clusterToken = "_cluster";

/** Prefix of all subjects of one tenant, or of all tenants. */
export function subjectPrefixOf(tenant: string): string | undefined {
  return tenant === "" ? undefined : `${eventSubjectPrefix}.${tenant}`;
}

const typePrefix = "dev.warren.";

type Payload = Exclude<Event["payload"], { case: undefined }>;

function payloadSchema(kind: string): DescMessage | undefined {
  return EventSchema.oneofs[0]!.fields.find((field) => field.localName === kind)?.message;
}

function instanceIn(payload: Payload): string | undefined {
  const value: { instance?: { id?: string } | undefined } = payload.value as never;
  return value.instance?.id;
}

export function encodeEvent(event: {
  readonly id: string;
  readonly source: string;
  /** ms since 1970 */
  readonly time: number;
  /** Empty where there is none. */
  readonly tenant: string;
  readonly payload: Payload;
}): EventRecord {
  const { payload } = event;
  const instance = instanceIn(payload);
  return {
    id: event.id,
    subject: `${eventSubjectPrefix}.${event.tenant || clusterToken}.${payload.case}`,
    headers: {
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": event.id,
      "ce-source": `/warren/${event.source}`,
      "ce-type": typePrefix + payload.case,
      "ce-time": new Date(event.time).toISOString(),
      ...(event.tenant ? { "ce-subject": event.tenant } : {}),
      ...(instance ? { "ce-instance": instance } : {}),
    },
    data: new TextEncoder().encode(JSON.stringify(toJson(payloadSchema(payload.case)!, payload.value))),
  };
}

/** An event's record could not be understood. */
export class EventFormatError extends Error {
  override readonly name = "EventFormatError";
}

/**
 * @throws EventFormatError for a record that no version of Warren wrote
 */
export function decodeEvent(record: EventRecord, journalSeq: bigint): Event {
  const { headers } = record;
  const kind = (headers["ce-type"] ?? "").slice(typePrefix.length);
  const schema = payloadSchema(kind);
  if (!schema || !headers["ce-type"]?.startsWith(typePrefix)) {
    throw new EventFormatError(
      `event ${record.id} has the unknown type ${JSON.stringify(headers["ce-type"] ?? "")}`,
    );
  }
  const time = Date.parse(headers["ce-time"] ?? "");
  if (!Number.isFinite(time)) throw new EventFormatError(`event ${record.id} has no valid ce-time`);
  try {
    const value = fromJson(schema, JSON.parse(new TextDecoder().decode(record.data)), {
      ignoreUnknownFields: true,
    });
    return create(EventSchema, {
      id: record.id,
      source: (headers["ce-source"] ?? "").replace("/warren/", ""),
      time: toTimestamp(time),
      tenant: headers["ce-subject"] ?? "",
      journalSeq,
      payload: { case: kind, value } as Payload,
    });
  } catch (error) {
    throw new EventFormatError(`event ${record.id} (${kind}) cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** ms since 1970 at which the event happened, by its producer's clock. */
export function eventTime(event: Event): number {
  return fromTimestamp(event.time, 0);
}
