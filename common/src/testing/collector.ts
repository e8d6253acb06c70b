/** A collector for tests: takes OTLP/HTTP JSON on loopback and keeps the spans. */

export interface SeenSpan {
  readonly service: string;
  readonly name: string;
  readonly kind: "internal" | "server" | "client";
  readonly trace: string;
  readonly id: string;
  /** "" for the root. */
  readonly parent: string;
  readonly failed: boolean;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Messages of recorded exceptions. */
  readonly exceptions: readonly string[];
}

interface OtlpAttribute {
  key: string;
  value: Record<string, unknown>;
}

interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  attributes: OtlpAttribute[];
  events: { attributes: OtlpAttribute[] }[];
  status: { code?: number };
}

interface OtlpRequest {
  resourceSpans: { resource: { attributes: OtlpAttribute[] }; scopeSpans: { spans: OtlpSpan[] }[] }[];
}

const kinds = ["internal", "internal", "server", "client"] as const;

export class Collector implements Disposable {
  readonly spans: SeenSpan[] = [];
  requests = 0;
  readonly #server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      this.requests++;
      if (new URL(request.url).pathname !== "/v1/traces") return new Response("not here", { status: 404 });
      this.#keep((await request.json()) as OtlpRequest);
      return Response.json({});
    },
  });

  /** For OTEL_EXPORTER_OTLP_ENDPOINT. */
  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  #keep({ resourceSpans }: OtlpRequest): void {
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = String(named(resource.attributes)["service.name"]);
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({
          service,
          name: span.name,
          kind: kinds[span.kind]!,
          trace: span.traceId,
          id: span.spanId,
          parent: span.parentSpanId ?? "",
          failed: span.status.code === 2,
          attributes: named(span.attributes),
          exceptions: span.events.map(({ attributes }) => String(named(attributes)["exception.message"])),
        });
      }
    }
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }
}

function named(attributes: OtlpAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
