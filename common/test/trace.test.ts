/** Traces, against a real collector on loopback and over the real RPC server. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Collector, type SeenSpan } from "@warren/common/testing/collector";
import { Role } from "@warren/proto/common";
import { Health } from "@warren/proto/grpc";
import { SchedulerService } from "@warren/proto/scheduler";
import pino from "pino";
import { connectRpc, type RpcConnection, streaming } from "../src/rpc/client.ts";
import type { Credentials } from "../src/rpc/credentials.ts";
import { Code, rpcError } from "../src/rpc/errors.ts";
import { type RpcServer, serveRpc } from "../src/rpc/server.ts";
import { isQuick } from "../src/testing/quick.ts";
import { waitUntil } from "../src/time.ts";
import { openCellSecrets } from "../src/tls/cell.ts";
import { currentTraceparent, withSpan } from "../src/trace.ts";
import { formatTraceparent, parseTraceparent } from "../src/traceparent.ts";
import { startTracing } from "../src/tracing.ts";

const log = pino({ level: "silent" });
const foreignTrace = "0af7651916cd43dd8448eb211c80319c";
const foreignSpan = "b7ad6b7169203331";

let directory: string;
let server: RpcServer;
let credentials: Credentials;
let connection: RpcConnection;
/** What the last handler was in. */
let inHandler: string | undefined;
/** Streams whose handler has cleaned up. */
let ended = 0;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-trace-"));
  const cell = await openCellSecrets(directory, "test");
  credentials = (await cell.credentialsFor("client", Role.CLIENT)).credentials;
  server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials: (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials,
    log,
    routes: (router) => {
      router.service(SchedulerService, {
        ensure: ({ tenant }) => {
          inHandler = currentTraceparent();
          return withSpan("inner", { tenant }, async () => ({ url: `http://${tenant}.localhost` }));
        },
        touch: () => {
          inHandler = currentTraceparent();
          return {};
        },
        getTenant: () => {
          throw rpcError(Code.NotFound, "no such tenant");
        },
        getStats: () => {
          throw new Error("secret inside");
        },
        async *watchEvents({ tenant }) {
          try {
            for (let i = 0; i < 3 || tenant === "endless"; i++) {
              inHandler = currentTraceparent();
              yield {};
            }
          } finally {
            ended++;
          }
        },
      });
    },
  });
  connection = connectRpc({ url: server.url, credentials, deadlineMs: 10_000 });
});

afterAll(async () => {
  connection.close();
  await server.stop(100);
  await rm(directory, { recursive: true });
});

/** What a collector was sent while tracing was on around `run`. */
async function traced(run: () => unknown): Promise<SeenSpan[]> {
  using collector = new Collector();
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = collector.url;
  const tracing = await startTracing({ process: "test", version: "0", log });
  try {
    await run();
  } finally {
    delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
    await tracing.stop();
  }
  return collector.spans;
}

const ensure = () => connection.client(SchedulerService).ensure({ tenant: "a" });
const ensureName = "warren.scheduler.v1.SchedulerService/Ensure";

/** Ensure as anybody's HTTP client calls it. */
async function ensureWith(headers: Record<string, string>, token = credentials.token): Promise<Response> {
  return fetch(`${server.url}/warren.scheduler.v1.SchedulerService/Ensure`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, ...headers },
    body: '{"tenant":"a"}',
    tls: { ca: credentials.ca },
  });
}

function only(spans: readonly SeenSpan[], kind: SeenSpan["kind"]): SeenSpan {
  const found = spans.filter((span) => span.kind === kind);
  expect(found).toHaveLength(1);
  return found[0]!;
}

describe("calls", () => {
  test("a call and its handling are spans of one trace, down to what the handler does", async () => {
    const spans = await traced(() => withSpan("outer", { answer: 42 }, ensure));
    expect(spans).toHaveLength(4);
    const outer = spans.find(({ name }) => name === "outer")!;
    const inner = spans.find(({ name }) => name === "inner")!;
    const [client, handling] = [only(spans, "client"), only(spans, "server")];
    expect([outer.parent, client.parent, handling.parent, inner.parent]).toEqual([
      "",
      outer.id,
      client.id,
      handling.id,
    ]);
    expect(new Set(spans.map(({ trace }) => trace)).size).toBe(1);
    expect(new Set(spans.map(({ service }) => service))).toEqual(new Set(["warren-test"]));
    expect([client.name, handling.name]).toEqual([ensureName, ensureName]);
    expect(outer.attributes).toMatchObject({ answer: 42 });
    expect(inHandler).toBe(`00-${handling.trace}-${handling.id}-01`);
  });

  test("calls at once are not mixed up", async () => {
    const spans = await traced(() =>
      Promise.all(Array.from({ length: 20 }, (_, i) => withSpan(`outer-${i}`, {}, ensure))),
    );
    expect(spans).toHaveLength(80);
    for (const outer of spans.filter(({ name }) => name.startsWith("outer"))) {
      expect(spans.filter(({ trace }) => trace === outer.trace)).toHaveLength(4);
    }
  });

  test("a foreign traceparent is continued", async () => {
    const spans = await traced(() => ensureWith({ traceparent: `00-${foreignTrace}-${foreignSpan}-01` }));
    expect(only(spans, "server")).toMatchObject({ trace: foreignTrace, parent: foreignSpan });
  });

  test("one that is not sampled is handed on, and not sent", async () => {
    const spans = await traced(() => ensureWith({ traceparent: `00-${foreignTrace}-${foreignSpan}-00` }));
    expect(spans).toHaveLength(0);
    expect(inHandler).toMatch(new RegExp(`^00-${foreignTrace}-[0-9a-f]{16}-00$`));
  });

  test.each([
    "",
    "nonsense",
    `00-${"0".repeat(32)}-${foreignSpan}-01`,
    `01-${"x".repeat(70_000)}`.slice(0, 8_000),
  ])("a malformed traceparent is ignored: %#", async (traceparent) => {
    const spans = await traced(async () => {
      expect((await ensureWith({ traceparent })).status).toBe(200);
    });
    expect(only(spans, "server").parent).toBe("");
  });

  test("a stream is one span, as long as it lasts, and its handler runs in it", async () => {
    const spans = await traced(async () => {
      for await (const _ of connection.client(SchedulerService).watchEvents({})) {
        // read to its end
      }
    });
    expect(spans).toHaveLength(2);
    const handling = only(spans, "server");
    expect(handling.parent).toBe(only(spans, "client").id);
    expect(inHandler).toContain(handling.id);
  });

  test("a stream that its reader leaves ends at the server, and is no failure", async () => {
    const spans = await traced(async () => {
      ended = 0;
      const watch = (signal: AbortSignal) =>
        connection.client(SchedulerService).watchEvents({ tenant: "endless" }, { signal });
      for await (const _ of streaming(watch)) break;
      await waitUntil(() => ended === 1, { deadlineMs: 10_000, what: "the handler's end" });
    });
    expect(only(spans, "client")).toMatchObject({ failed: false, attributes: { "rpc.grpc.status_code": 1 } });
  });

  test("a caller's mistake is the caller's failure, a handler's own is both's", async () => {
    const scheduler = connection.client(SchedulerService);
    const swallow = () => undefined;
    const mistake = await traced(() => scheduler.getTenant({ tenant: "a" }).catch(swallow));
    expect(only(mistake, "client")).toMatchObject({
      failed: true,
      attributes: { "rpc.grpc.status_code": 5 },
    });
    expect(only(mistake, "server")).toMatchObject({
      failed: false,
      attributes: { "rpc.grpc.status_code": 5 },
    });
    const fault = await traced(() => scheduler.getStats({}).catch(swallow));
    expect(only(fault, "server")).toMatchObject({ failed: true, exceptions: ["secret inside"] });
    expect(only(fault, "client").exceptions.join()).not.toContain("secret");
  });

  test("health and what is said again and again make none", async () => {
    const spans = await traced(async () => {
      inHandler = "not called";
      await connection.client(Health).check({});
      await connection.client(SchedulerService).touch({ source: "test" });
    });
    expect(inHandler).toBeUndefined();
    expect(spans).toHaveLength(0);
  });

  test("rule 10: a stranger's call makes none", async () => {
    const spans = await traced(async () => {
      expect(
        (await ensureWith({ traceparent: `00-${foreignTrace}-${foreignSpan}-01` }, "wrong")).status,
      ).toBe(401);
    });
    expect(spans).toHaveLength(0);
  });
});

describe("withSpan", () => {
  test("records what was thrown, at once or later, and throws it on", async () => {
    const spans = await traced(async () => {
      const now = () =>
        withSpan("now", {}, () => {
          throw new Error("at once");
        });
      expect(now).toThrow("at once");
      const later = await withSpan("later", {}, () => Promise.reject(new Error("too late"))).catch((e) => e);
      expect(later.message).toBe("too late");
    });
    expect(spans.map(({ name, failed, exceptions }) => [name, failed, exceptions])).toEqual([
      ["now", true, ["at once"]],
      ["later", true, ["too late"]],
    ]);
  });

  test("while tracing is off it only runs what it is given", async () => {
    expect(withSpan("off", {}, () => currentTraceparent())).toBeUndefined();
    expect(await withSpan("off", {}, async () => 7)).toBe(7);
    inHandler = "not called";
    expect((await ensure()).url).toBe("http://a.localhost");
    expect(inHandler).toBeUndefined();
  });
});

describe("traceparent", () => {
  const good = `00-${foreignTrace}-${foreignSpan}-01`;

  test.each([
    [good, good],
    [`00-${foreignTrace}-${foreignSpan}-00`, `00-${foreignTrace}-${foreignSpan}-00`],
    [`00-${foreignTrace}-${foreignSpan}-ff`, good],
    [`cc-${foreignTrace}-${foreignSpan}-01-what-comes-later`, good],
  ])("%s is read", (text, written) => {
    expect(formatTraceparent(parseTraceparent(text)!)).toBe(written);
  });

  test.each([
    "",
    good.slice(0, -1),
    ` ${good}`,
    `${good}\n`,
    `${good}-more`,
    `ff${good.slice(2)}`,
    good.toUpperCase(),
    good.replaceAll("-", "_"),
    `00-${"0".repeat(32)}-${foreignSpan}-01`,
    `00-${foreignTrace}-${"0".repeat(16)}-01`,
    `cc-${foreignTrace}-${foreignSpan}-01x`,
    `${good}, ${good}`,
  ])("%j is none", (text) => {
    expect(parseTraceparent(text)).toBeUndefined();
  });
});

describe("a process", () => {
  /** Runs trace-child.ts; answers what it says and what it logged. */
  async function child(env: Record<string, string | undefined>, spans = 1) {
    const process_ = Bun.spawn([process.execPath, join(import.meta.dir, "trace-child.ts"), `${spans}`], {
      env: { PATH: process.env.PATH, WARREN_LOG: "warn", ...env },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err, code] = await Promise.all([
      new Response(process_.stdout).text(),
      new Response(process_.stderr).text(),
      process_.exited,
    ]);
    expect([err, code]).toEqual([err, 0]);
    return { ...(JSON.parse(out) as { on: boolean; traceparent?: string; packages: string[] }), log: err };
  }

  test("loads and sends nothing unless it is told where to", async () => {
    using collector = new Collector();
    for (const env of [{}, { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_SDK_DISABLED: "true" }]) {
      expect(await child(env)).toEqual({ on: false, packages: ["api"], log: "" });
    }
    expect(collector.requests).toBe(0);
  });

  test("sends what it has before it ends, to the endpoint for traces too", async () => {
    using collector = new Collector();
    const { on, traceparent } = await child({
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/v1/traces`,
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=test",
    });
    expect(on).toBeTrue();
    expect(collector.spans).toHaveLength(1);
    const [{ service, trace, id }] = collector.spans as [SeenSpan];
    expect([service, traceparent]).toEqual(["warren-child", `00-${trace}-${id}-01`]);
  });

  test.skipIf(isQuick)(
    "rule 9: a collector that is away, deaf or no URL costs spans, and neither time nor the process",
    async () => {
      using deaf = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const away = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const awayPort = away.port;
      away.stop(true);
      const endpoints = [`http://127.0.0.1:${deaf.port}`, `http://127.0.0.1:${awayPort}`, "no url"];
      const began = performance.now();
      const said = await Promise.all(
        endpoints.map((OTEL_EXPORTER_OTLP_ENDPOINT) => child({ OTEL_EXPORTER_OTLP_ENDPOINT }, 10_000)),
      );
      expect(performance.now() - began).toBeLessThan(15_000);
      for (const { log } of said) expect(log).toContain("spans");
      // Thousands were lost, and that was said once or twice, not thousands of times.
      for (const { log } of said) expect(log.trim().split("\n").length).toBeLessThan(5);
    },
  );
});
