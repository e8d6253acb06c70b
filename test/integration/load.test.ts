/** The load generator against servers that misbehave: whatever is wrong must be seen and counted. */
import { afterEach, expect, test } from "bun:test";
import { waitUntil } from "@warren/common/time";
import type { Socket } from "bun";
import { startLoad } from "../src/load/load.ts";
import { startLoadProcess } from "../src/load/process.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const stops: (() => unknown)[] = [];

afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

/** A raw server; `answer` is told the how manieth request it is. */
function serve(answer: (n: number, socket: Socket) => void): { url: string; connections: () => number } {
  let n = 0;
  let connections = 0;
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: () => void connections++,
      data: (socket) => answer(++n, socket),
    },
  });
  stops.push(() => server.stop(true));
  return { url: `http://127.0.0.1:${server.port}/`, connections: () => connections };
}

test("counts what succeeds, and keeps its connections", async () => {
  const server = serve((_, socket) => void socket.write(ok));
  const load = startLoad({ targets: [{ url: server.url }], rate: 200, durationMs: 500, body: "^ok$" });
  const report = await load.done;
  expect(report).toMatchObject({ due: 100, sent: 100, ok: 100, failed: 0, failures: [] });
  expect(server.connections()).toBeLessThan(50);
  expect(report.p50Ms).toBeGreaterThan(0);
  expect(report.p50Ms).toBeLessThanOrEqual(report.p99Ms);
  expect(report.p99Ms).toBeLessThanOrEqual(report.maxMs);
});

test("one answer in five is wrong, in its status or its body: exactly those fail", async () => {
  const wrong = [
    "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
  ];
  const server = serve((n, socket) => void socket.write(n % 5 ? ok : wrong[(n / 5) % 2]!));
  const load = startLoad({ targets: [{ url: server.url }], rate: 200, durationMs: 500, body: "^ok$" });
  const report = await load.done;
  expect(report).toMatchObject({ sent: 100, ok: 80, failed: 20 });
  const kinds = Object.fromEntries(report.failures.map(({ kind, count }) => [kind, count]));
  expect(kinds).toEqual({ status: 10, body: 10 });
  expect(report.failures[0]!.samples).toHaveLength(5);
  expect(report.failures.find(({ kind }) => kind === "status")!.samples[0]).toContain("503 bad");
});

test("a kept connection that is reset under a request is that request's failure, and is not repaired", async () => {
  const server = serve((n, socket) => {
    if (n % 4) socket.write(ok);
    else socket.terminate();
  });
  const report = await startLoad({ targets: [{ url: server.url }], rate: 100, durationMs: 400 }).done;
  expect(report).toMatchObject({ sent: 40, ok: 30, failed: 10 });
  expect(report.failures).toMatchObject([{ kind: "broken", count: 10 }]);
  expect(report.failures[0]!.samples[0]).toMatch(/before the answer \(request \d+ of its connection\)/);
});

test("an answer that is cut short, that is none, or is longer than it says, is a failure", async () => {
  const bad = [
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "HELLO\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
  ];
  const server = serve((n, socket) => void socket.end(bad[n % 3]!));
  const report = await startLoad({ targets: [{ url: server.url }], rate: 100, durationMs: 300 }).done;
  expect(report).toMatchObject({ sent: 30, ok: 0, failed: 30 });
  const kinds = Object.fromEntries(report.failures.map(({ kind, count }) => [kind, count]));
  expect(kinds).toEqual({ broken: 10, malformed: 20 });
});

test("a stall is seen by every request that fell into it, counted from its intended time", async () => {
  const stalled: Socket[] = [];
  let frozen = true;
  const server = serve((_, socket) => {
    if (frozen) stalled.push(socket);
    else socket.write(ok);
  });
  const load = startLoad({ targets: [{ url: server.url }], rate: 100, durationMs: 600 });
  await waitUntil(() => stalled.length >= 30, { deadlineMs: 5_000, what: "30 requests to wait" });
  frozen = false;
  for (const socket of stalled) socket.write(ok);
  const report = await load.done;
  expect(report).toMatchObject({ sent: 60, ok: 60, failed: 0 });
  expect(report.maxMs).toBeGreaterThan(280);
  expect(report.p50Ms).toBeGreaterThan(0); // sent all the same: half of them within the stall
});

test("bounded: a server that answers nothing costs timeouts and overflows, and the load ends", async () => {
  const server = serve(() => {});
  const began = performance.now();
  const report = await startLoad({
    targets: [{ url: server.url }],
    rate: 200,
    durationMs: 300,
    timeoutMs: 600,
    maxInFlight: 25,
  }).done;
  expect(report).toMatchObject({ due: 60, sent: 25, ok: 0, failed: 60 });
  const kinds = Object.fromEntries(report.failures.map(({ kind, count }) => [kind, count]));
  expect(kinds).toEqual({ timeout: 25, overflow: 35 });
  expect(performance.now() - began).toBeLessThan(5_000);
});

test("nobody listens: every request fails, none is sent", async () => {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const url = `http://127.0.0.1:${server.port}/`;
  server.stop(true);
  const report = await startLoad({ targets: [{ url }], rate: 50, durationMs: 200 }).done;
  expect(report).toMatchObject({ due: 10, sent: 0, ok: 0, failed: 10 });
  expect(report.failures).toMatchObject([{ kind: "connect", count: 10 }]);
});

test("in a process of its own it is not delayed by a test that keeps its own process busy; stopped early it reports", async () => {
  const other = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const s = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("ok") }); console.log(s.port);`,
    ],
    { stdout: "pipe" },
  );
  stops.push(() => {
    other.kill("SIGKILL");
    return other.exited;
  });
  const reader = other.stdout.getReader();
  const port = new TextDecoder().decode((await reader.read()).value).trim();
  const load = startLoadProcess({
    targets: [{ url: `http://127.0.0.1:${port}/`, host: "hello.localhost" }],
    rate: 100,
    durationMs: 20_000,
    body: "^ok$",
  });
  await waitUntil(() => load.ok > 5, { deadlineMs: 10_000, what: "the first answers" });
  const until = performance.now() + 500;
  while (performance.now() < until); // busy
  const report = await load.stop();
  expect(report.failed).toBe(0);
  expect(report.ok).toBeGreaterThan(50);
  expect(report.due).toBeLessThan(1_000);
  expect(report.maxMs).toBeLessThan(400);
});

test("what cannot be is refused", () => {
  const good = { targets: [{ url: "http://127.0.0.1:1/" }], rate: 1, durationMs: 1 };
  expect(() => startLoad({ ...good, targets: [] })).toThrow("targets");
  expect(() => startLoad({ ...good, rate: 0 })).toThrow("rate");
  expect(() => startLoad({ ...good, durationMs: 1e9 })).toThrow("durationMs");
  expect(() => startLoad({ ...good, rate: 1e6, durationMs: 100_000 })).toThrow("requests");
});
