import { afterAll, beforeAll, expect, test } from "bun:test";
import { Collector } from "@warren/common/testing/collector";
import { withSpan } from "@warren/common/trace";
import { startTracing } from "@warren/common/tracing";
import { ExitReason } from "@warren/proto/common";
import { type FakeScheduler, silent, type TestAgent, TestSite } from "./support.ts";

let site: TestSite;
let scheduler: FakeScheduler;
let t: TestAgent;

beforeAll(async () => {
  site = await TestSite.open();
  scheduler = await site.scheduler();
  t = await site.agent(scheduler.url);
});

afterAll(() => site[Symbol.asyncDispose]());

test("a start and a stop are spans of their caller's trace, a start's phases below it, and the tenant is told", async () => {
  using collector = new Collector();
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = collector.url;
  const tracing = await startTracing({ process: "agent", version: "0", log: silent });
  let environment: Record<string, string> = {};
  try {
    await withSpan("test.start", {}, async () => {
      const instance = await t.start("hello.ts");
      environment = (await (await fetch(`http://127.0.0.1:${instance.endpoint!.port}/env`)).json()) as Record<
        string,
        string
      >;
      await t.stop(instance.ref!.id);
    });
    await withSpan("test.failed", {}, () => t.start("exit.ts", { env: { CODE: "3" } }, t.ref("failing")));
  } finally {
    delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
    await tracing.stop();
  }
  const named = (name: string) => collector.spans.filter((span) => span.name === name);
  const [root] = named("test.start");
  const starts = named("instance.start");
  const start = starts.find((span) => span.trace === root!.trace)!;
  expect(start.attributes).toMatchObject({ "warren.tenant": "app" });
  expect(named("instance.stop")[0]).toMatchObject({
    trace: root!.trace,
    attributes: { "warren.reason": ExitReason[ExitReason.KILLED] },
  });
  const parts = collector.spans.filter((span) => span.parent === start.id).map((span) => span.name);
  expect(parts.toSorted()).toEqual(
    ["instance.answer", "instance.fetch", "instance.listen", "instance.queue", "instance.spawn"].toSorted(),
  );
  expect(environment.TRACEPARENT).toBe(`00-${start.trace}-${start.id}-01`);
  const failed = starts.find((span) => span.trace !== root!.trace)!;
  expect(failed).toMatchObject({ failed: true, exceptions: ["exited with code 3 before it was ready"] });
});
