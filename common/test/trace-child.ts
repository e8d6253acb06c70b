/**
 * A process as Warren's are: any stray error ends it. Makes spans, more than may wait to be sent, and stops; prints what
 * it saw as JSON.
 */
import { startTracing } from "../src/tracing.ts";
import "../src/rpc/client.ts";
import "../src/rpc/server.ts";
import { createLogger } from "../src/log.ts";
import { currentTraceparent, withSpan } from "../src/trace.ts";

for (const stray of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(stray, (error: unknown) => {
    console.error(stray, error);
    process.exit(1);
  });
}
const tracing = await startTracing({
  process: "child",
  version: "0",
  log: createLogger({ process: "child" }),
});
const traceparent = withSpan("one", {}, () => currentTraceparent());
for (let i = 1; i < Number(process.argv[2] ?? 1); i++) withSpan("more", {}, () => i);
await tracing.stop();
const packages = Object.keys(require.cache).flatMap(
  (path) => /@opentelemetry\/([^/]+)\/build/.exec(path)?.[1] ?? [],
);
console.log(JSON.stringify({ on: tracing.on, traceparent, packages: [...new Set(packages)] }));
process.exit(0);
