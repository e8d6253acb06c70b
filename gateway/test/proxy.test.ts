import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { gzipSync } from "node:zlib";
import { waitUntil } from "@warren/common/time";
import { type House, openHouse, upstream } from "./support/house.ts";
import { rawClient } from "./support/raw.ts";

const within = { deadlineMs: 5_000 };
const encode = (text: string) => new TextEncoder().encode(text);

let house: House;
let shop: ReturnType<typeof upstream>;
/** Requests that the tenant saw. */
const seen: Request[] = [];
const aborted: string[] = [];
/** Lets a stream of the tenant go on. */
const gates = new Map<string, PromiseWithResolvers<void>>();
const gate = (name: string) => {
  const made = gates.get(name) ?? Promise.withResolvers<void>();
  gates.set(name, made);
  return made;
};

beforeAll(async () => {
  house = await openHouse();
  shop = upstream(async (request) => {
    seen.push(request);
    const { pathname, searchParams } = new URL(request.url);
    request.signal.addEventListener("abort", () => aborted.push(pathname));
    switch (pathname) {
      case "/echo": {
        const headers: Record<string, string> = Object.fromEntries(request.headers);
        return Response.json({
          method: request.method,
          url: request.url,
          headers,
          body: await request.text(),
        });
      }
      case "/cookies": {
        const headers = new Headers({
          "Content-Type": "text/plain",
          "X-Own": "1",
          Connection: "close, X-Hop",
          "X-Hop": "1",
        });
        headers.append("Set-Cookie", "a=1; Path=/");
        headers.append("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT");
        return new Response("ok", { headers });
      }
      case "/gzip":
        return new Response(gzipSync("squeezed ".repeat(100)), { headers: { "Content-Encoding": "gzip" } });
      case "/redirect":
        return new Response(null, { status: 302, headers: { Location: "http://elsewhere.example/x" } });
      case "/status":
        return new Response(null, { status: Number(searchParams.get("s")), headers: { ETag: '"e"' } });
      case "/stream":
        return new Response(
          new ReadableStream({
            async start(controller) {
              controller.enqueue(encode("data: first\n\n"));
              await gate("stream").promise;
              controller.enqueue(encode("data: last\n\n"));
              controller.close();
            },
          }),
          { headers: { "Content-Type": "text/event-stream" } },
        );
      case "/upload": {
        const reader = request.body!.getReader();
        const first = await reader.read();
        gate("upload").resolve();
        let bytes = first.value!.byteLength;
        for (let next = await reader.read(); !next.done; next = await reader.read())
          bytes += next.value.byteLength;
        return new Response(String(bytes));
      }
      case "/hang":
        return gate("hang").promise.then(() => new Response("late"));
      default:
        return new Response(`hello ${pathname}`);
    }
  });
  house.scheduler.publish("shop", shop.port);
  await waitUntil(async () => (await house.ask("shop")).ok, within);
});

afterAll(async () => {
  for (const { resolve } of gates.values()) resolve();
  await house[Symbol.asyncDispose]();
  await shop[Symbol.asyncDispose]();
});

describe("headers", () => {
  test("several Set-Cookie stay several, and what belongs to one hop stays there", async () => {
    const { headers } = await house.ask("shop", "/cookies");
    expect(headers.getSetCookie()).toEqual(["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"]);
    expect(headers.get("x-own")).toBe("1");
    expect(headers.get("x-hop")).toBeNull();
  });

  test("the tenant sees Host as the client sent it, and who asked by the gateway's word only", async () => {
    const headers = {
      "X-Forwarded-For": "6.6.6.6",
      "X-Forwarded-Proto": "https",
      "X-Forwarded-Prefix": "/evil",
      Forwarded: "for=6.6.6.6",
      "X-Real-IP": "6.6.6.6",
      Authorization: "Bearer mine",
      Cookie: "a=1",
    };
    const echo = (await (await house.ask("shop", "/echo?q=%20a%2Fb", { headers })).json()) as Echo;
    expect(echo.headers).toMatchObject({
      host: "shop.localhost",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "shop.localhost",
      authorization: "Bearer mine",
      cookie: "a=1",
    });
    for (const name of ["x-forwarded-prefix", "forwarded"]) expect(echo.headers[name]).toBeUndefined();
    expect(echo.url).toEndWith("/echo?q=%20a%2Fb");
  });

  test("by path: the prefix is taken off and told", async () => {
    const response = await fetch(`http://127.0.0.1:${house.gateway.port}/shop/echo?x=1`);
    const echo = (await response.json()) as Echo;
    expect(new URL(echo.url).pathname).toBe("/echo");
    expect(echo.headers["x-forwarded-prefix"]).toBe("/shop");
    const bare = await fetch(`http://127.0.0.1:${house.gateway.port}/shop`, { redirect: "manual" });
    expect([bare.status, await bare.text()]).toEqual([200, "hello /"]);
  });

  test("encoded bytes are not touched", async () => {
    using client = await rawClient(
      house.gateway.port,
      "GET /gzip HTTP/1.1\nHost: shop.localhost\nAccept-Encoding: gzip\nConnection: close\n\n",
    );
    await waitUntil(() => client.closed, within);
    const bytes = Buffer.from(client.text(), "latin1");
    const body = bytes.subarray(bytes.indexOf("\r\n\r\n") + 4);
    expect(client.text()).toMatch(/content-encoding: gzip/i);
    expect(body.equals(gzipSync("squeezed ".repeat(100)))).toBe(true);
  });

  test("redirects and statuses are the client's affair", async () => {
    const redirect = await house.ask("shop", "/redirect");
    expect([redirect.status, redirect.headers.get("location")]).toEqual([302, "http://elsewhere.example/x"]);
    for (const status of [201, 204, 304, 404, 418, 500, 503]) {
      const response = await house.ask("shop", `/status?s=${status}`);
      expect([response.status, response.headers.get("etag")]).toEqual([status, '"e"']);
    }
  });
});

/** A tenant whose Ensure answers at once. */
function ready(tenant: string, port: number): void {
  const endpoint = house.scheduler.endpoint(tenant, port);
  house.scheduler.onEnsure = async () => house.scheduler.ready(endpoint);
}

interface Echo {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: string;
}

describe("methods and bodies", () => {
  test("every method, with a body where there is one", async () => {
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"]) {
      const echo = (await (await house.ask("shop", "/echo", { method, body: `b-${method}` })).json()) as Echo;
      expect(echo).toMatchObject({ method, body: `b-${method}` });
    }
    const options = (await (await house.ask("shop", "/echo", { method: "OPTIONS" })).json()) as Echo;
    expect(options.method).toBe("OPTIONS");
    const head = await house.ask("shop", "/x", { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "8", ""]);
  });

  test("a download's first bytes arrive before the last are sent, and it is in flight until its end", async () => {
    const response = await house.ask("shop", "/stream");
    const reader = response.body!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("data: first\n\n");
    expect(house.gateway.stats().inFlight).toBe(1);
    gate("stream").resolve();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("data: last\n\n");
    expect((await reader.read()).done).toBe(true);
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("an upload's first bytes arrive before the last are sent", async () => {
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(encode("first"));
        await gate("upload").promise; // the tenant has it
        controller.enqueue(encode("last"));
        controller.close();
      },
    });
    const response = await house.ask("shop", "/upload", { method: "POST", body });
    expect(await response.text()).toBe("9");
  });

  test("10 MiB go both ways unharmed", async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536));
    const body = new Blob(Array.from({ length: 160 }, () => bytes));
    const echo = await house.ask("shop", "/upload", { method: "PUT", body });
    expect(await echo.text()).toBe(String(160 * 65_536));
  });
});

describe("somebody goes away", () => {
  test("a client that leaves while it waits: the tenant hears of it", async () => {
    const abort = new AbortController();
    const answer = house.ask("shop", "/hang", { signal: abort.signal }).catch(() => "left");
    await waitUntil(() => seen.some((request) => request.url.endsWith("/hang")), within);
    abort.abort();
    expect(await answer).toBe("left");
    await waitUntil(() => aborted.includes("/hang"), within);
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("a client that leaves in the middle of a stream: the tenant hears of it", async () => {
    gates.delete("stream");
    const abort = new AbortController();
    const response = await house.ask("shop", "/stream", { signal: abort.signal });
    await response.body!.getReader().read();
    abort.abort();
    await waitUntil(() => aborted.includes("/stream"), within);
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("a tenant that dies in the middle of a body: the client does not take the part for the whole", async () => {
    const dying = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
        setTimeout(() => socket.destroy(), 20);
      });
    });
    await new Promise<void>((resolve) => dying.listen(0, "127.0.0.1", resolve));
    ready("dying", (dying.address() as { port: number }).port);
    using client = await rawClient(house.gateway.port, "GET / HTTP/1.1\nHost: dying.localhost\n\n");
    await client.until("part");
    await waitUntil(() => client.closed, within);
    expect(client.text()).not.toContain("\r\n0\r\n\r\n");
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
    dying.close();
  });

  test("a slow client holds the tenant back: little waits in between", async () => {
    let sent = 0;
    const chunk = new Uint8Array(65_536);
    const fast = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        const pump = () => {
          while (sent < 104_857_600) {
            sent += chunk.length;
            if (!socket.write(chunk)) return void socket.once("drain", pump);
          }
        };
        pump();
      });
    });
    await new Promise<void>((resolve) => fast.listen(0, "127.0.0.1", resolve));
    ready("fast", (fast.address() as { port: number }).port);
    using client = await rawClient(house.gateway.port, "GET / HTTP/1.1\nHost: fast.localhost\n\n");
    client.socket.pause();
    // Stalled: nothing more is sent for a while.
    let before = -1;
    await waitUntil(async () => {
      const same = sent === before && sent > 0;
      before = sent;
      await Bun.sleep(100);
      return same && sent === before;
    }, within);
    expect(sent).toBeLessThan(40_000_000);
    fast.close();
  });
});
