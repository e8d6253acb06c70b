import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { waitUntil } from "@warren/common/time";
import { type House, openHouse, upstream } from "./support/house.ts";
import { rawClient } from "./support/raw.ts";

const within = { deadlineMs: 5_000 };
let house: House;
let live: ReturnType<typeof upstream>;
const closes: [number, string][] = [];
let received = 0;
let flooding: Bun.ServerWebSocket<undefined> | undefined;
const handshakes: Record<string, string>[] = [];

beforeAll(async () => {
  house = await openHouse({ socketBufferBytes: 256 * 1024 });
  live = upstream(
    (request, server) => {
      handshakes.push(Object.fromEntries(request.headers));
      if (new URL(request.url).pathname === "/denied") {
        return new Response("members only", { status: 403, headers: { "X-Why": "no" } });
      }
      const protocols = request.headers.get("sec-websocket-protocol");
      const headers = protocols ? { "Sec-WebSocket-Protocol": protocols.split(", ").at(-1)! } : undefined;
      return server.upgrade(request, { headers }) ? undefined : new Response("no socket", { status: 426 });
    },
    {
      backpressureLimit: 1 << 30,
      message(socket, message) {
        received += message.length;
        if (typeof message === "string" && message.startsWith("close "))
          socket.close(Number(message.slice(6)), "bye");
        else if (message === "die") socket.terminate();
        else if (message === "flood") {
          flooding = socket;
          for (let i = 0; i < 400; i++) socket.send(new Uint8Array(65_536));
        } else socket.send(message);
      },
      close: (_socket, code, reason) => void closes.push([code, reason]),
    },
  );
  house.scheduler.publish("live", live.port);
  await waitUntil(async () => (await house.ask("live", "/denied")).status === 403, within);
});

afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await live[Symbol.asyncDispose]();
});

function socket(path = "/", protocols: string[] = []) {
  const url = `ws://127.0.0.1:${house.gateway.port}${path}`;
  const made = new WebSocket(url, {
    headers: { Host: "live.localhost", Cookie: "a=1" },
    protocols,
  } as unknown as string[]);
  made.binaryType = "arraybuffer";
  const messages: (string | ArrayBuffer)[] = [];
  made.onmessage = ({ data }) => void messages.push(data);
  const opened = new Promise<void>((resolve, reject) => {
    made.onopen = () => resolve();
    made.onerror = (event) => reject(new Error((event as ErrorEvent).message));
  });
  opened.catch(() => {});
  const closed = new Promise<[number, string]>((resolve) => {
    made.onclose = ({ code, reason }) => resolve([code, reason]);
  });
  return { made, messages, opened, closed };
}

describe("a WebSocket", () => {
  test("carries text and bytes both ways, and is in flight until it is closed (rule 3)", async () => {
    const { made, messages, opened, closed } = socket("/chat?room=1");
    await opened;
    made.send("text ü");
    made.send(new Uint8Array([0, 255, 1]));
    await waitUntil(() => messages.length === 2, within);
    expect(messages[0]).toBe("text ü");
    expect([...new Uint8Array(messages[1] as ArrayBuffer)]).toEqual([0, 255, 1]);
    expect(house.gateway.stats().inFlight).toBe(1);
    made.close(4001, "done");
    await closed;
    await waitUntil(() => closes.some(([code, reason]) => code === 4001 && reason === "done"), within);
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("agrees on the tenant's subprotocol, and the tenant sees who asked", async () => {
    const { made, opened, closed } = socket("/", ["v1", "v2"]);
    await opened;
    expect(made.protocol).toBe("v2");
    expect(handshakes.at(-1)).toMatchObject({
      host: "live.localhost",
      cookie: "a=1",
      "x-forwarded-for": "127.0.0.1",
      "sec-websocket-protocol": "v1, v2",
    });
    made.close();
    await closed;
  });

  test("the tenant's close codes reach the client", async () => {
    for (const code of [1000, 1001, 1008, 1011, 1012, 4321]) {
      const { made, opened, closed } = socket();
      await opened;
      made.send(`close ${code}`);
      expect(await closed).toEqual([code, "bye"]);
    }
  });

  test("a tenant that dies is a connection that dies", async () => {
    const { made, opened, closed } = socket();
    await opened;
    made.send("die");
    expect((await closed)[0]).toBe(1006);
  });

  test("a client that dies is a connection that dies", async () => {
    const { made, opened } = socket();
    await opened;
    const before = closes.length;
    (made as WebSocket & { terminate(): void }).terminate();
    await waitUntil(() => closes.length > before, within);
    expect(closes.at(-1)![0]).toBe(1006);
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("a refused handshake is answered by the tenant's own words", async () => {
    using client = await rawClient(
      house.gateway.port,
      "GET /denied HTTP/1.1\nHost: live.localhost\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n",
    );
    await client.until("members only");
    expect(client.text()).toStartWith("HTTP/1.1 403");
    expect(client.text()).toMatch(/x-why: no/i);
    expect(handshakes.at(-1)).toMatchObject({ upgrade: "websocket" });
    await waitUntil(() => house.gateway.stats().inFlight === 0, within);
  });

  test("rule 9: a flood to a client that does not read pauses the tenant; nothing is lost", async () => {
    const { made, messages, opened, closed } = socket();
    await opened;
    const slow = made as WebSocket & { pause(): void; resume(): void };
    slow.send("flood");
    slow.pause();
    // The wall holds: what the gateway does not take waits at the tenant.
    let waiting = -1;
    await waitUntil(async () => {
      const before = waiting;
      waiting = flooding?.getBufferedAmount() ?? -1;
      await Bun.sleep(50);
      return waiting > 0 && waiting === before;
    }, within);
    slow.resume();
    await waitUntil(() => messages.length === 400, within);
    made.close();
    await closed;
  });

  test("rule 9: many messages to a tenant arrive whole", async () => {
    const { made, messages, opened, closed } = socket();
    await opened;
    for (let i = 0; i < 200; i++) made.send(new Uint8Array(65_536));
    await waitUntil(() => messages.length === 200, within);
    made.close();
    await closed;
    expect(received).toBeGreaterThanOrEqual(200 * 65_536);
  });
});
