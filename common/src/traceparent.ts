/** W3C Trace Context, level 1: how a trace goes on in another process. */
import {
  type Context,
  createTraceState,
  isSpanContextValid,
  type SpanContext,
  type TextMapGetter,
  type TextMapPropagator,
  type TextMapSetter,
  trace,
} from "@opentelemetry/api";

/** Longer ones may be left out, says W3C; a caller's header must not grow what is kept per span. */
const longestTracestate = 512;

/** version, trace id, span id, flags; versions after 00 may carry more. */
const form = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** The span that a `traceparent` names, or nothing where it is malformed: then a trace begins. */
export function parseTraceparent(text: string): SpanContext | undefined {
  const match = form.exec(text);
  if (!match) return undefined;
  const [, version, traceId, spanId, flags, more] = match;
  if (version === "00" && more !== undefined) return undefined;
  // Of the flags only "sampled" is known.
  const found: SpanContext = {
    traceId: traceId!,
    spanId: spanId!,
    traceFlags: Number.parseInt(flags!, 16) & 1,
    isRemote: true,
  };
  return isSpanContextValid(found) ? found : undefined;
}

export function formatTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${(traceFlags & 1) === 1 ? "01" : "00"}`;
}

/** Carries the trace in the headers `traceparent` and `tracestate`. */
export const traceparentPropagator: TextMapPropagator = {
  fields: () => ["traceparent", "tracestate"],
  inject(context: Context, carrier: unknown, setter: TextMapSetter): void {
    const active = trace.getSpanContext(context);
    if (!active || !isSpanContextValid(active)) return;
    setter.set(carrier, "traceparent", formatTraceparent(active));
    const state = active.traceState?.serialize();
    if (state) setter.set(carrier, "tracestate", state);
  },
  extract(context: Context, carrier: unknown, getter: TextMapGetter): Context {
    const header = getter.get(carrier, "traceparent");
    const parent = typeof header === "string" ? parseTraceparent(header) : undefined;
    if (!parent) return context;
    const state = getter.get(carrier, "tracestate");
    if (typeof state === "string" && state.length <= longestTracestate) {
      parent.traceState = createTraceState(state);
    }
    return trace.setSpanContext(context, parent);
  },
};
