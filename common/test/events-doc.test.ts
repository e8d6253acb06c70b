/** The examples of docs/events.md, read as others read events: they must be what this version writes. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type DescMessage, fromJson, type JsonValue, type Message } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { EventSchema } from "@warren/proto/common";
import { decodeEvent, type EventRecord, encodeEvent } from "../src/cloudevents.ts";
import { readAsCloudEvent } from "../src/testing/cloudevent.ts";
import { fromTimestamp } from "../src/time.ts";

interface Example {
  readonly record: EventRecord;
  readonly msgId: string;
}

const text = readFileSync(join(import.meta.dir, "../../docs/events.md"), "utf8");
const examples = [...text.matchAll(/^```event\n([\s\S]*?)\n```$/gm)].map(([, block]) => parse(block!));
const cases = EventSchema.oneofs[0]!.fields.filter((field) => field.message);

function parse(block: string): Example {
  const [head, ...body] = block.split("\n\n");
  const headers: Record<string, string> = {};
  for (const line of head!.split("\n")) {
    const at = line.indexOf(": ");
    headers[line.slice(0, at)] = line.slice(at + 2);
  }
  const { subject, "nats-msg-id": msgId, ...rest } = headers;
  const data = new TextEncoder().encode(JSON.stringify(JSON.parse(body.join("\n\n"))));
  return { record: { id: rest["ce-id"]!, subject: subject!, headers: rest, data }, msgId: msgId! };
}

const typeOf = ({ record }: Example) => record.headers["ce-type"]!.slice("dev.warren.".length);
const jsonOf = ({ record }: Example) => JSON.parse(new TextDecoder().decode(record.data)) as JsonValue;

/** Names of all fields that are set, of the message and of those in it: "Transition.after". */
function fieldsSet(desc: DescMessage, message: Message, into: Set<string>): void {
  const view = reflect(desc, message);
  for (const field of desc.fields) {
    if (!view.isSet(field)) continue;
    into.add(`${desc.name}.${field.name}`);
    if (field.fieldKind === "message") fieldsSet(field.message, view.get(field).message, into);
  }
}

/** The same of all that there are; what Google's own types hold is theirs. */
function fieldsOf(desc: DescMessage, into: Set<string>): void {
  if (desc.typeName.startsWith("google.")) return;
  for (const field of desc.fields) {
    const name = `${desc.name}.${field.name}`;
    if (into.has(name)) continue;
    into.add(name);
    if (field.fieldKind === "message") fieldsOf(field.message, into);
  }
}

test("every type of event has an example, and a section of its own", () => {
  const types = cases.map(({ localName }) => localName).sort();
  expect([...new Set(examples.map(typeOf))].sort()).toEqual(types);
  const sections = [...text.matchAll(/^## dev\.warren\.(\w+)$/gm)].map(([, type]) => type!);
  expect(sections.sort()).toEqual(types);
});

test("each example is a CloudEvent, and exactly what this version writes", () => {
  for (const example of examples) {
    const { record, msgId } = example;
    expect(msgId).toBe(record.id);
    readAsCloudEvent(record);
    const schema = cases.find(({ localName }) => localName === typeOf(example))!.message!;
    // Unknown fields are refused here.
    const value = fromJson(schema, jsonOf(example));
    const event = decodeEvent(record, 1n);
    expect(event.payload.value).toEqual(value as never);
    const { id, source, tenant, payload } = event;
    const time = fromTimestamp(event.time, 0);
    const written = encodeEvent(
      { id, source, time, tenant, payload: payload as never },
      { cell: "eu-1", format: "json" },
    );
    expect(written.subject).toBe(record.subject);
    expect(written.headers).toEqual(record.headers);
    expect(JSON.parse(new TextDecoder().decode(written.data))).toEqual(jsonOf(example));
  }
});

test("together the examples of each type show every field that it has", () => {
  // Shown in other types' examples: what is in a message that several have.
  const shown = new Set<string>();
  for (const example of examples) {
    const schema = cases.find(({ localName }) => localName === typeOf(example))!.message!;
    fieldsSet(schema, fromJson(schema, jsonOf(example)), shown);
  }
  const all = new Set<string>();
  for (const { message } of cases) fieldsOf(message!, all);
  expect([...all].filter((field) => !shown.has(field))).toEqual([]);
});
