/**
 * Warren's events as CloudEvents 1.0 in binary mode, as the NATS binding has it: each attribute in a header of its own,
 * the payload as protojson or as protobuf. The same record travels through NATS and through the embedded journal.
 */
import {
  create,
  type DescMessage,
  fromBinary,
  fromJson,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
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

/** How events are written; whoever reads them reads all. */
export interface EventStyle {
  /** Name of the cell: no two events of a fleet of cells have the same source and id. */
  readonly cell: string;
  readonly format: EventFormat;
}

export const eventFormats = ["json", "protobuf"] as const;

/** Of the payload. */
export type EventFormat = (typeof eventFormats)[number];

const defaultStyle: EventStyle = { cell: "local", format: "json" };

const contentTypes: Readonly<Record<EventFormat, string>> = {
  json: "application/json",
  protobuf: "application/protobuf",
};

const typePrefix = "dev.warren.";
/** Names the message of the contracts that the payload is; a name, nothing to be fetched. */
const schemaPrefix = "proto:";
const sourcePrefix = "/warren/";

type Payload = Exclude<Event["payload"], { case: undefined }>;

function payloadSchema(kind: string): DescMessage | undefined {
  return EventSchema.oneofs[0]!.fields.find((field) => field.localName === kind)?.message;
}

function instanceIn(payload: Payload): string | undefined {
  const value: { instance?: { id?: string } | undefined } = payload.value as never;
  return value.instance?.id;
}

export function encodeEvent(
  event: {
    readonly id: string;
    /** Who observed it: name of a node, a scheduler or a gateway. */
    readonly source: string;
    /** ms since 1970 */
    readonly time: number;
    /** Empty where there is none. */
    readonly tenant: string;
    readonly payload: Payload;
  },
  { cell, format }: EventStyle = defaultStyle,
): EventRecord {
  const { payload } = event;
  const instance = instanceIn(payload);
  const schema = payloadSchema(payload.case)!;
  return {
    id: event.id,
    subject: `${eventSubjectPrefix}.${event.tenant || clusterToken}.${payload.case}`,
    headers: {
      // The binding for NATS has it as an attribute like any other; that for HTTP, and people, look for the first.
      "content-type": contentTypes[format],
      "ce-datacontenttype": contentTypes[format],
      "ce-specversion": "1.0",
      "ce-id": event.id,
      "ce-source": `${sourcePrefix}${cell}/${event.source}`,
      "ce-type": typePrefix + payload.case,
      "ce-time": new Date(event.time).toISOString(),
      "ce-dataschema": schemaPrefix + schema.typeName,
      ...(event.tenant ? { "ce-subject": event.tenant } : {}),
      ...(instance ? { "ce-instance": instance } : {}),
    },
    data: write(schema, payload.value, format),
  };
}

function write(schema: DescMessage, value: Message, format: EventFormat): Uint8Array {
  if (format === "protobuf") return toBinary(schema, value);
  return new TextEncoder().encode(JSON.stringify(toJson(schema, value)));
}

/** What an older version wrote is JSON, as is what names no content type. */
function read(schema: DescMessage, { headers, data }: EventRecord): Message {
  const contentType = headers["ce-datacontenttype"] ?? headers["content-type"] ?? contentTypes.json;
  if (contentType === contentTypes.protobuf) return fromBinary(schema, data);
  if (contentType !== contentTypes.json)
    throw new Error(`its content type is ${JSON.stringify(contentType)}`);
  return fromJson(schema, JSON.parse(new TextDecoder().decode(data)), { ignoreUnknownFields: true });
}

/** Before there were cells in it, a source was "/warren/<producer>". */
function producerIn(source: string): string {
  return source.startsWith(sourcePrefix) ? source.slice(source.lastIndexOf("/") + 1) : source;
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
    const value = read(schema, record);
    return create(EventSchema, {
      id: record.id,
      source: producerIn(headers["ce-source"] ?? ""),
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
