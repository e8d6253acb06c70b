/**
 * A span for each call, on the caller's side and on the server's, as parts of one trace. By hand, since no
 * instrumentation hooks into Bun. Takes only OpenTelemetry's API and runs under Node too: in a control plane's process
 * the client's spans go to whatever tracing that process has.
 */
import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import {
  type Context,
  context,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  trace,
} from "@opentelemetry/api";
import { NodeService, SchedulerService } from "@warren/proto/scheduler";
import { endSpan, tracer } from "../trace.ts";

/** Said again and again by every node and gateway: as spans they would crowd out all that is worth a look. */
const periodic: ReadonlySet<DescMethod> = new Set([NodeService.method.report, SchedulerService.method.touch]);

function isTraced(method: DescMethod): boolean {
  // The standard's own: health and reflection.
  return !method.parent.typeName.startsWith("grpc.") && !periodic.has(method);
}

/** For clients: a span below the active one, handed on in the request's `traceparent`. */
export function clientSpans(): Interceptor {
  return (next) => (request) =>
    isTraced(request.method) ? inSpan(SpanKind.CLIENT, context.active(), request, next) : next(request);
}

/**
 * For servers: a span below the one that `traceparent` names, active while the handler runs. To be placed after
 * authentication: a stranger's calls make none.
 */
export function serverSpans(): Interceptor {
  return (next) => (request) => {
    if (!isTraced(request.method)) return next(request);
    const parent = propagation.extract(ROOT_CONTEXT, request.header, {
      get: (headers, name) => headers.get(name) ?? undefined,
      keys: (headers) => [...headers.keys()],
    });
    return inSpan(SpanKind.SERVER, parent, request, next);
  };
}

type AnyRequest = UnaryRequest | StreamRequest;
type AnyResponse = UnaryResponse | StreamResponse;

/** A stream's span lasts until the stream has ended; its messages leave no trace. */
async function inSpan(
  kind: SpanKind,
  parent: Context,
  request: AnyRequest,
  next: (request: AnyRequest) => Promise<AnyResponse>,
): Promise<AnyResponse> {
  const { service, method } = request;
  const attributes = { "rpc.system": "grpc", "rpc.service": service.typeName, "rpc.method": method.name };
  const span = tracer().startSpan(`${service.typeName}/${method.name}`, { kind, attributes }, parent);
  if (!isSpanContextValid(span.spanContext())) return next(request); // tracing is off
  const inside = trace.setSpan(parent, span);
  if (kind === SpanKind.CLIENT) {
    propagation.inject(inside, request.header, { set: (headers, name, value) => headers.set(name, value) });
  }
  const end = (error?: unknown) => {
    if (!span.isRecording()) return; // unsampled, or ended already
    const code = error === undefined ? 0 : ConnectError.from(error).code;
    span.setAttribute("rpc.grpc.status_code", code);
    endSpan(span, isFailure(kind, code) ? error : undefined);
  };
  try {
    const response = await context.with(inside, () => next(request));
    if (!response.stream) {
      end();
      return response;
    }
    // A reader that leaves is not heard of otherwise.
    request.signal.addEventListener("abort", () => end(request.signal.reason), { once: true });
    return { ...response, message: within(inside, response.message, end) };
  } catch (error) {
    end(error);
    throw error;
  }
}

const serverFaults: readonly number[] = [
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
];

/** A caller's own mistake is no failure of the server that says so, and to leave is nobody's. */
function isFailure(kind: SpanKind, code: number): boolean {
  return kind === SpanKind.SERVER ? serverFaults.includes(code) : code !== 0 && code !== Code.Canceled;
}

/**
 * The same messages, each asked for in that context: a generator's body runs in the context of whoever asks. A
 * generator itself, since Connect ends streams by `throw` as well as by `return`.
 */
async function* within<T>(
  inside: Context,
  messages: AsyncIterable<T>,
  end: (error?: unknown) => void,
): AsyncGenerator<T, void, undefined> {
  const iterator = messages[Symbol.asyncIterator]();
  let left = false;
  try {
    for (;;) {
      const result = await context.with(inside, () => iterator.next());
      if (result.done) return;
      left = true;
      yield result.value;
      left = false;
    }
  } catch (error) {
    end(error);
    throw error;
  } finally {
    end();
    if (left) await context.with(inside, () => iterator.return?.());
  }
}
