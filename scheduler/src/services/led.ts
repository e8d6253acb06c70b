/**
 * A service that only the leader answers. Each call is given to the handlers of the term it arrives in; a scheduler that
 * does not lead, or ceases to before the answer has left, names its leader instead: it must not speak from a state that
 * may be another's by now, were it only a map look-up (DESIGN "Failing over").
 */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { Code, rpcError } from "@warren/common/rpc/errors";
import type { Leadership } from "../leadership.ts";
import type { Term } from "../term.ts";

type Handler = (input: unknown, context: HandlerContext) => unknown;

export function led<S extends DescService>(
  service: S,
  leadership: Leadership,
  handlers: (term: Term) => Partial<ServiceImpl<S>>,
): ServiceImpl<S> {
  const begin = (method: DescMethod): { term: Term; handler: Handler } => {
    const { term } = leadership;
    if (!term) throw leadership.refusal(false);
    const handler = (handlers(term) as Record<string, Handler | undefined>)[method.localName];
    if (!handler) throw rpcError(Code.Unimplemented, `${method.name} is not implemented in this version`);
    return { term, handler };
  };
  const unary =
    (method: DescMethod): Handler =>
    async (input, context) => {
      const { term, handler } = begin(method);
      try {
        return await handler(input, context);
      } finally {
        // biome-ignore lint/correctness/noUnsafeFinally: whatever came out of it is the word of one who does not lead
        if (!term.holds) throw leadership.refusal(true);
      }
    };
  const streaming = (method: DescMethod): Handler =>
    async function* (input, context) {
      const { term, handler } = begin(method);
      try {
        for await (const message of handler(input, context) as AsyncIterable<unknown>) {
          if (!term.holds) break;
          yield message;
        }
      } catch (error) {
        if (term.holds) throw error;
      }
      if (!term.holds && !context.signal.aborted) throw leadership.refusal(true);
    };
  return Object.fromEntries(
    service.methods.map((method) => {
      const streams = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
      return [method.localName, streams ? streaming(method) : unary(method)];
    }),
  ) as ServiceImpl<S>;
}
