/** What a tenant may say on its channel: one JSON object a line, as worker/README.md describes it for every language. */

export type Message =
  | { readonly kind: "ready" }
  | { readonly kind: "heartbeat" }
  /** `why` is for the tenant's author. */
  | { readonly kind: "malformed"; readonly why: string };

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * Never throws, whatever the bytes are.
 * @param line without its line feed; the caller bounds its length
 */
export function parseMessage(line: Uint8Array): Message {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(line));
  } catch {
    return malformed("it is not JSON in UTF-8"); // or nested too deeply for the parser
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return malformed("it is not a JSON object");
  }
  const field = (name: string) => (Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined);
  if (field("v") !== 1) return malformed('its version "v" is not 1');
  switch (field("type")) {
    case "ready":
      return { kind: "ready" };
    case "heartbeat":
      return { kind: "heartbeat" };
    default:
      return malformed('its "type" is neither "ready" nor "heartbeat"');
  }
}

function malformed(why: string): Message {
  return { kind: "malformed", why };
}

export const okReply = '{"v":1,"type":"ok"}\n';

export function errorReply(message: string): string {
  return `${JSON.stringify({ v: 1, type: "error", message })}\n`;
}
