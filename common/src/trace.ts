/**
 * Spans of a trace. They stand on the API of OpenTelemetry alone: unless `startTracing` (tracing.ts) has loaded the SDK
 * in this process they are nothing, and cost nothing that could be measured.
 */
import {
  type Attributes,
  context,
  propagation,
  type Span,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";

export type { Attributes, Span } from "@opentelemetry/api";

/** Asked for anew each time: a tracer that is kept would outlive the tracing that it belongs to. */
export function tracer(): Tracer {
  return trace.getTracer("warren");
}

/**
 * Runs `fn` in a span below the one it is called in. What `fn` throws or rejects with is recorded on the span and goes
 * on to the caller.
 * @param name "instance.start": of a kind, never of one tenant
 */
export function withSpan<T>(name: string, attributes: Attributes, fn: (span: Span) => T): T {
  return tracer().startActiveSpan(name, { attributes }, (span) => {
    let result: T;
    try {
      result = fn(span);
    } catch (error) {
      endSpan(span, error);
      throw error;
    }
    if (!(result instanceof Promise)) {
      endSpan(span);
      return result;
    }
    return result.then(
      (value) => {
        endSpan(span);
        return value;
      },
      (error: unknown) => {
        endSpan(span, error);
        throw error;
      },
    ) as T;
  });
}

/** Ends a span, as failed if there is an error. */
export function endSpan(span: Span, error?: unknown): void {
  if (error !== undefined) {
    const exception = error instanceof Error ? error : new Error(String(error));
    span.recordException(exception);
    span.setStatus({ code: SpanStatusCode.ERROR, message: exception.message });
  }
  span.end();
}

/** W3C `traceparent` of the span that this is called in, for whom it is handed on to; nothing while tracing is off. */
export function currentTraceparent(): string | undefined {
  const carrier: { traceparent?: string } = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent;
}

/** A span that outlives the call it begins in: the start of an instance goes on when its caller has gone. */
export interface OpenSpan {
  /** For whom it is handed on to; undefined while tracing is off. */
  readonly traceparent: string | undefined;
  /** A part of it that is over. @param began, ended ms since 1970 */
  part(name: string, began: number, ended: number): void;
  /** To be called once. */
  end(error?: unknown): void;
}

/** Begins a span below the one it is called in. */
export function openSpan(name: string, attributes: Attributes): OpenSpan {
  const span = tracer().startSpan(name, { attributes });
  const inside = trace.setSpan(context.active(), span);
  return {
    traceparent: context.with(inside, currentTraceparent),
    part: (part, began, ended) => tracer().startSpan(part, { startTime: began }, inside).end(ended),
    end: (error) => endSpan(span, error),
  };
}
