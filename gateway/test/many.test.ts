/** Bun's fetch allows 256 requests at once per process unless told otherwise before the start, so: in a child. */
import { expect, test } from "bun:test";
import { join } from "node:path";

test("300 SSE clients at once, and a request goes through besides (rule 6)", async () => {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "support", "many.ts")], {
    env: { ...process.env, BUN_CONFIG_MAX_HTTP_REQUESTS: "65535" },
    stdout: "pipe",
    stderr: "inherit",
    timeout: 20_000,
  });
  expect(JSON.parse(await new Response(child.stdout).text())).toEqual({
    streams: 300,
    inFlight: 300,
    besides: "hello",
    events: 300,
    afterwards: 0,
  });
  expect(await child.exited).toBe(0);
}, 25_000);
