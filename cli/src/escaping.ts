/** Escapes what servers answer, all of it in one place: no verb that prints an answer can forget to. */
import type { Interceptor } from "@connectrpc/connect";
import { escapeAll } from "./terminal.ts";

export const escaping: Interceptor = (next) => async (request) => {
  const response = await next(request);
  // Its lines are for `logs` to escape, which knows whether a terminal reads them.
  if (request.method.name === "StreamLogs") return response;
  if (!response.stream) {
    escapeAll(response.message);
    return response;
  }
  return { ...response, message: eachEscaped(response.message) };
};

async function* eachEscaped<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  for await (const message of messages) {
    escapeAll(message);
    yield message;
  }
}
