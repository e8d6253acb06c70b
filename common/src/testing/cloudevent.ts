/** Reads an event as somebody else's program does: with the CloudEvents project's own SDK, which holds its schema. */
import { CloudEvent, HTTP } from "cloudevents";
import type { EventRecord } from "../cloudevents.ts";

/**
 * In binary mode NATS's headers are HTTP's, but for the content type, which is compared here.
 * @throws ValidationError of the SDK, or Error
 */
export function readAsCloudEvent({ headers, data }: EventRecord): CloudEvent<unknown> {
  if (headers["content-type"] !== headers["ce-datacontenttype"])
    throw new Error("the two headers that name the content type differ");
  for (const [name, value] of Object.entries(headers)) {
    if (!/^(ce-[a-z0-9]{1,20}|content-type)$/.test(name)) throw new Error(`${name} is no attribute's header`);
    // The binding has all else percent-encoded; nothing of ours needs it.
    if (!/^[\x21-\x24\x26-\x7e]+$/.test(value)) throw new Error(`${name} has a value that needs encoding`);
  }
  const body = headers["content-type"] === "application/json" ? new TextDecoder().decode(data) : data;
  const event = HTTP.toEvent({ headers: { ...headers }, body });
  if (!(event instanceof CloudEvent)) throw new Error("the SDK read something else than one event");
  event.validate();
  // It replaces what it cannot read, a time for one, by something of its own.
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith("ce-") && event[name.slice(3)] !== value)
      throw new Error(`${name} was not understood`);
  }
  return event;
}
