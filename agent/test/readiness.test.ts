/** Every kind of readiness, against real servers. That the port is the instance's own is the probe's to say. */
import { afterEach, describe, expect, test } from "bun:test";
import { pause, waitUntil } from "@warren/common/time";
import { ReadinessKind } from "@warren/proto/common";
import type { Listener } from "../src/host/addresses.ts";
import {
  awaitReady,
  type ReadinessOutcome,
  type ReadinessProbe,
  type ReadinessSpec,
  readinessOf,
} from "../src/readiness.ts";
import { whereabouts } from "../src/whereabouts.ts";

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one();
});

const port: ReadinessSpec = { path: "", status: 0, timeoutMs: 5_000 };
const message: ReadinessSpec = { ...port, kind: ReadinessKind.MESSAGE };
const nothing: ReadinessSpec = { ...port, kind: ReadinessKind.NONE };
const own: ReadinessProbe = {
  owner: () => ({ kind: "instance" }),
  whereabouts: () => ({ kind: "silent" }),
  tenantHost: "127.0.0.1",
};
const nobody: ReadinessProbe = { ...own, owner: () => ({ kind: "nobody" }) };
const stranger: ReadinessProbe = { ...own, owner: () => ({ kind: "stranger", who: "process 7 (nginx)" }) };
const mute = new AbortController().signal;

function serve(
  fetch: () => Response | Promise<Response> = () => new Response(),
  options: { port?: number } = {},
) {
  const server = Bun.serve({ port: options.port ?? 0, hostname: "127.0.0.1", reusePort: true, fetch });
  undo.push(() => server.stop(true));
  return server.port!;
}

/** One that nobody listens on, until somebody takes it. */
async function freePort(): Promise<number> {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const { port } = server;
  await server.stop(true);
  return port!;
}

function wait(
  spec: ReadinessSpec,
  at: number,
  more: { probe?: ReadinessProbe; deadlineMs?: number; said?: AbortSignal; signal?: AbortSignal } = {},
): Promise<ReadinessOutcome> {
  const { probe = own, deadlineMs = 10_000, said = mute, signal = mute } = more;
  return readinessOf(spec, at, said).wait(probe, deadlineMs, signal);
}

async function readyOf(outcome: Promise<ReadinessOutcome>) {
  const got = await outcome;
  if (got.kind !== "ready") throw new Error(JSON.stringify(got));
  return got;
}

describe("its port", () => {
  test.each([undefined, ReadinessKind.UNSPECIFIED, ReadinessKind.PORT])(
    "is what kind %p waits for",
    async (kind) => {
      const at = serve();
      expect(await wait({ ...port, kind }, at)).toEqual({
        kind: "ready",
        listenMs: expect.any(Number),
        answerMs: 0,
      });
      expect(await awaitReady({ port: at, ...port }, own, 5_000, mute)).toMatchObject({ kind: "ready" });
    },
  );

  test("accepting is enough without a path, and it says when that was", async () => {
    const at = await freePort();
    const waiting = readyOf(wait(port, at));
    await pause(150);
    serve(undefined, { port: at });
    const { listenMs, answerMs } = await waiting;
    expect(listenMs).toBeGreaterThan(140);
    expect(answerMs).toBe(0);
  });

  test("with a path, the time until it answers as expected is told by itself", async () => {
    const began = performance.now();
    const at = serve(() => new Response("", { status: performance.now() - began > 200 ? 200 : 500 }));
    const { listenMs, answerMs } = await readyOf(wait({ ...port, path: "/up" }, at));
    const inAll = performance.now() - began;
    expect(answerMs).toBeGreaterThan(100);
    expect(listenMs).toBeGreaterThanOrEqual(0);
    expect(listenMs + answerMs).toBeLessThanOrEqual(inAll);
  });

  test("one that stops listening and comes back has listened since then", async () => {
    const at = await freePort();
    const first = Bun.serve({
      port: at,
      hostname: "127.0.0.1",
      fetch: () => new Response("", { status: 500 }),
    });
    const waiting = readyOf(wait({ ...port, path: "/up" }, at));
    await pause(100);
    await first.stop(true);
    await pause(200); // some tries meet nobody
    serve(undefined, { port: at });
    expect((await waiting).listenMs).toBeGreaterThan(250);
  });

  test("not by its deadline: what was seen last is said", async () => {
    const spec = { ...port, timeoutMs: 200 };
    const deadlineMs = 200;
    const why = async (outcome: Promise<ReadinessOutcome>) =>
      (await outcome) as { kind: string; message: string };
    const free = await freePort();
    expect(await why(wait(spec, free, { deadlineMs }))).toEqual({
      kind: "timeout",
      message: `not ready within 200 ms: nothing listens on 127.0.0.1:${free}`,
    });
    const listeners = [{ address: "0.0.0.0", port: 3000 }];
    const elsewhere = { ...own, whereabouts: () => whereabouts(listeners, free, "127.0.0.1") };
    expect((await why(wait(spec, free, { deadlineMs, probe: elsewhere }))).message).toContain(
      `it listens on 0.0.0.0:3000, not on 127.0.0.1:${free}`,
    );
    const sick = serve(() => new Response("", { status: 500 }));
    expect((await why(wait({ ...spec, path: "/up" }, sick, { deadlineMs }))).message).toContain(
      "it answered 500 to /up",
    );
    const hung = serve(() => new Promise<Response>(() => {}));
    expect((await why(wait({ ...spec, path: "/up" }, hung, { deadlineMs }))).message).toMatch(
      /\/up was not answered: nothing within \d+ ms/,
    );
  });

  test("rule 6: another process on the port is a failed start, at once", async () => {
    const at = serve();
    expect(await wait(port, at, { probe: stranger })).toEqual({
      kind: "stranger",
      message: `port ${at} is held by process 7 (nginx), which is no process of this instance`,
    });
  });

  test("given up, it ends", async () => {
    const stop = new AbortController();
    const waiting = wait(port, await freePort(), { signal: stop.signal });
    stop.abort();
    expect(await waiting).toEqual({ kind: "aborted" });
    const hung = new AbortController();
    let asked = false;
    const at = serve(() => {
      asked = true;
      return new Promise<Response>(() => {});
    });
    const asking = wait({ ...port, path: "/up" }, at, { signal: hung.signal });
    await waitUntil(() => asked, { deadlineMs: 10_000, what: "the path to be asked" });
    hung.abort();
    expect(await asking).toEqual({ kind: "aborted" });
  });
});

describe("a port shared with other instances", () => {
  test("that another accepts there is not enough: its own socket must be among them", async () => {
    const at = serve();
    let listens = false;
    const probe: ReadinessProbe = { ...own, owner: () => ({ kind: listens ? "instance" : "nobody" }) };
    const waiting = readyOf(wait({ ...port, path: "/up" }, at, { probe }));
    await pause(150);
    serve(undefined, { port: at });
    listens = true;
    expect((await waiting).listenMs).toBeGreaterThan(140);
  });

  test("never its own: that is said", async () => {
    const at = serve();
    expect(await wait({ ...port, timeoutMs: 150 }, at, { probe: nobody, deadlineMs: 150 })).toEqual({
      kind: "timeout",
      message: `not ready within 150 ms: it does not itself listen on 127.0.0.1:${at}`,
    });
  });
});

describe("its message", () => {
  test("one that came before the wait began counts", async () => {
    const { listenMs, answerMs } = await readyOf(
      wait(message, await freePort(), { said: AbortSignal.abort(), probe: nobody, deadlineMs: 0 }),
    );
    expect(listenMs).toBeGreaterThanOrEqual(0);
    expect(answerMs).toBe(0);
  });

  test("it is waited for, whatever the port does", async () => {
    const said = new AbortController();
    const waiting = readyOf(wait(message, serve(), { said: said.signal }));
    await pause(100);
    said.abort();
    expect((await waiting).listenMs).toBeGreaterThan(90);
  });

  test("not by its deadline: the way to say it is named", async () => {
    const outcome = await wait({ ...message, timeoutMs: 60 }, serve(), { deadlineMs: 60 });
    expect(outcome).toEqual({
      kind: "timeout",
      message: "not ready within 60 ms: no ready message came (does it call ready() of @warren/worker?)",
    });
  });

  test("rule 6: nobody else may hold its port meanwhile", async () => {
    const at = serve();
    const outcome = await wait(message, at, { said: AbortSignal.abort(), probe: stranger });
    expect(outcome).toMatchObject({
      kind: "stranger",
      message: expect.stringContaining(`port ${at} is held`),
    });
  });

  test("given up, it ends; also when the message came at the same moment", async () => {
    const stop = new AbortController();
    const waiting = wait(message, 1, { signal: stop.signal });
    stop.abort();
    expect(await waiting).toEqual({ kind: "aborted" });
    const both = { said: AbortSignal.abort(), signal: AbortSignal.abort() };
    expect(await wait(message, 1, both)).toEqual({ kind: "aborted" });
  });
});

describe("another place than its port at 127.0.0.1", () => {
  const at = (listeners: Listener[], tenantHost = "127.0.0.1"): ReadinessProbe => ({
    ...own,
    whereabouts: () => whereabouts(listeners, six, tenantHost),
    tenantHost,
  });
  let six = 0;
  const listen = () => {
    const server = Bun.serve({ port: 0, hostname: "::1", fetch: () => new Response() });
    undo.push(() => server.stop(true));
    six = server.port!;
    return six;
  };

  test("its port at ::1 is as good, and it says that it was there", async () => {
    const probe = at([{ address: "::1", port: listen() }]);
    expect(await readyOf(wait({ ...port, path: "/" }, six, { probe }))).toMatchObject({ address: "::1" });
  });

  test("where gateways of other hosts do not come, it is told so", async () => {
    const probe = at([{ address: "::1", port: listen() }], "10.0.0.5");
    const outcome = await wait({ ...port, elsewhereMs: 50 }, six, { probe });
    expect(outcome).toMatchObject({ kind: "timeout" });
    expect((outcome as { message: string }).message).toContain(
      `it listens on [::1]:${six}, not on 127.0.0.1:${six}`,
    );
    expect((outcome as { message: string }).message).toContain("the address in HOST");
  });

  test("one that comes to its port in time was not given up for listening elsewhere before", async () => {
    six = await freePort();
    const probe = at([{ address: "0.0.0.0", port: 9 }]);
    const waiting = readyOf(wait({ ...port, elsewhereMs: 2_000 }, six, { probe }));
    await pause(200);
    serve(undefined, { port: six });
    expect((await waiting).address).toBeUndefined();
  });

  test("a timeout of its own is waited for to its end", async () => {
    six = await freePort();
    const probe = at([{ address: "0.0.0.0", port: 9 }]);
    const outcome = await wait({ ...port, timeoutMs: 300 }, six, { probe, deadlineMs: 300 });
    expect((outcome as { message: string }).message).toMatch(
      /^not ready within 300 ms: it listens on 0.0.0.0:9, not/,
    );
  });

  test("whereabouts: loopback before others, a wildcard is everywhere, link-local is nowhere", () => {
    const where = (...addresses: string[]) =>
      whereabouts(
        addresses.map((address) => ({ address, port: 7 })),
        7,
        "127.0.0.1",
      );
    expect(where()).toEqual({ kind: "silent" });
    expect(where("::1", "0.0.0.0")).toEqual({ kind: "reachable", address: "127.0.0.1" });
    expect(where("::")).toEqual({ kind: "reachable", address: "::1" });
    expect(where("10.1.2.3")).toEqual({ kind: "reachable", address: "10.1.2.3" });
    expect(where("fe80::1").kind).toBe("elsewhere");
    expect(whereabouts([{ address: "10.1.2.3", port: 7 }], 7, "10.1.2.3").kind).toBe("reachable");
    expect(whereabouts([{ address: "10.1.2.4", port: 7 }], 7, "10.1.2.3").kind).toBe("elsewhere");
    expect(whereabouts([{ address: "127.0.0.1", port: 8 }], 7, "127.0.0.1").kind).toBe("elsewhere");
  });
});

describe("nothing", () => {
  test("it is ready once its process runs", async () => {
    const probe: ReadinessProbe = {
      owner: () => {
        throw new Error("not asked");
      },
      whereabouts: () => ({ kind: "silent" }),
      tenantHost: "127.0.0.1",
    };
    expect(await wait(nothing, 1, { probe, deadlineMs: 0 })).toEqual({
      kind: "ready",
      listenMs: 0,
      answerMs: 0,
    });
    expect(await wait(nothing, 1, { signal: AbortSignal.abort() })).toEqual({ kind: "aborted" });
  });
});
