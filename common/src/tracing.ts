/**
 * Sends a process's spans to a collector, by OTLP over HTTP. Off, and then not even loaded, unless one of the standard
 * variables says where that is. The SDK heeds the other standard ones too (OTEL_TRACES_SAMPLER, OTEL_BSP_*,
 * OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES).
 */
import { context, type DiagLogger, DiagLogLevel, diag, propagation, trace } from "@opentelemetry/api";
import type { Logger } from "./log.ts";
import { withDeadline } from "./time.ts";
import { traceparentPropagator } from "./traceparent.ts";

export interface TracingOptions {
  /** "agent": spans carry the service name "warren-agent". */
  readonly process: string;
  /** Version of Warren. */
  readonly version: string;
  readonly log: Logger;
}

export interface Tracing {
  readonly on: boolean;
  /** Sends what is left, within 2 s, and turns tracing off; never throws. */
  stop(): Promise<void>;
}

const stopMs = 2_000;
/** A collector that is away is told of so often. */
const complainEveryMs = 60_000;
/** Longer attributes are cut; errors' messages are among them. */
const longestAttribute = 4_096;

/**
 * To be awaited before the process serves. A collector that is away costs its spans and nothing else: at most 2,048 wait
 * (the SDK's default), the rest is dropped. Never throws: what is wrong with the settings is said in the log.
 */
export async function startTracing({ process: name, version, log }: TracingOptions): Promise<Tracing> {
  if (!isWanted(process.env)) return { on: false, stop: async () => {} };
  diag.setLogger(complaints(log), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  try {
    const [{ BasicTracerProvider, BatchSpanProcessor }, { OTLPTraceExporter }, resources, hooks] =
      await Promise.all([
        import("@opentelemetry/sdk-trace-base"),
        import("@opentelemetry/exporter-trace-otlp-http"),
        import("@opentelemetry/resources"),
        import("@opentelemetry/context-async-hooks"),
      ]);
    const provider = new BasicTracerProvider({
      resource: resources
        .detectResources({ detectors: [resources.envDetector] })
        .merge(
          resources.resourceFromAttributes({ "service.name": `warren-${name}`, "service.version": version }),
        ),
      spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
      generalLimits: { attributeValueLengthLimit: longestAttribute },
    });
    trace.setGlobalTracerProvider(provider);
    context.setGlobalContextManager(new hooks.AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(traceparentPropagator);
    return {
      on: true,
      async stop() {
        trace.disable();
        context.disable();
        propagation.disable();
        await withDeadline(provider.shutdown(), stopMs, "sending the last spans").catch((error: Error) =>
          log.warn({ why: error.message }, "the last spans were not sent"),
        );
        diag.disable();
      },
    };
  } catch (error) {
    log.warn({ err: error }, "spans are not sent: tracing could not be started");
    return { on: false, stop: async () => {} };
  }
}

function isWanted(env: Readonly<Record<string, string | undefined>>): boolean {
  const endpoint = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_EXPORTER_OTLP_ENDPOINT;
  return Boolean(endpoint) && env.OTEL_SDK_DISABLED?.toLowerCase() !== "true";
}

/** What the SDK complains of, in our log; a collector that is away complains with each batch. */
function complaints(log: Logger): DiagLogger {
  let last = Number.NEGATIVE_INFINITY;
  const complain = (why: string) => {
    if (performance.now() - last < complainEveryMs) return;
    last = performance.now();
    log.warn({ why: why.slice(0, 500) }, "spans are being lost");
  };
  const ignore = () => {};
  return { error: complain, warn: complain, info: ignore, debug: ignore, verbose: ignore };
}
