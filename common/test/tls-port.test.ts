/** A TLS port: what speaks TLS gets through however it comes in, what does not is told. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { SchedulerService } from "@warren/proto/scheduler";
import pino from "pino";
import { connectRpc } from "../src/rpc/client.ts";
import type { Credentials } from "../src/rpc/credentials.ts";
import { type RpcServer, serveRpc } from "../src/rpc/server.ts";
import { plainAnswer } from "../src/rpc/tls-port.ts";
import { openCellSecrets } from "../src/tls/cell.ts";

let directory: string;
let server: RpcServer;
let client: Credentials;
const mostConnections = 20;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-tls-port-"));
  const cell = await openCellSecrets(join(directory, "cell"), "test");
  client = (await cell.credentialsFor("client", Role.CLIENT)).credentials;
  server = await serveRpc({
    name: "scheduler",
    port: 0,
    credentials: (await cell.credentialsFor("scheduler", Role.SCHEDULER)).credentials,
    log: pino({ level: "silent" }),
    connections: { most: mostConnections },
    routes: (router) => {
      router.service(SchedulerService, { ensure: ({ tenant }) => ({ url: `http://${tenant}.localhost` }) });
    },
  });
});
afterAll(async () => {
  await server.stop(0);
  await rm(directory, { recursive: true });
});

async function ensured(url: string): Promise<string> {
  const connection = connectRpc({ url, credentials: client });
  try {
    return (await connection.client(SchedulerService).ensure({ tenant: "shop" }, { timeoutMs: 20_000 })).url;
  } finally {
    connection.close();
  }
}

/** All that the port answers to these bytes until it closes. */
function answerTo(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(server.port, "127.0.0.1", () => socket.write(bytes, "latin1"));
    socket.on("data", (data: Buffer) => {
      answer += data.toString("latin1");
    });
    socket.on("error", reject).on("close", () => resolve(answer));
  });
}

describe("a port that speaks TLS", () => {
  test("tells plain HTTP so, with the URL that works", async () => {
    const response = await fetch(`http://127.0.0.1:${server.port}/metrics`);
    expect(response.status).toBe(400);
    expect(await response.text()).toBe(`this port speaks TLS: https://127.0.0.1:${server.port}\n`);
    expect(await answerTo("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).toEndWith(`: ${server.url}\n`);
  });

  test("answers a large body of plain HTTP, too, instead of a reset", async () => {
    const body = "x".repeat(4 << 20);
    const response = await fetch(`http://127.0.0.1:${server.port}/`, { method: "POST", body });
    expect(response.status).toBe(400);
  });

  test("says nothing of a host that could be no host", () => {
    expect(plainAnswer("GET / HTTP/1.1\r\nHost: <b>x\r\n\r\n", "https://a:1")).toEndWith(
      "TLS: https://a:1\n",
    );
    expect(plainAnswer("GET / HTTP/1.1\r\nhost: s1:7420\r\n\r\n", "https://a:1")).toEndWith(
      "https://s1:7420\n",
    );
  });

  test("closes what is neither TLS nor HTTP without an answer", async () => {
    expect(await answerTo("\x00\x01\x02")).toBe("");
  });

  test("takes a handshake whose first byte comes alone", async () => {
    const splitting = createServer((inbound) => {
      const outbound = connect(server.port, "127.0.0.1");
      outbound.setNoDelay(true);
      inbound.once("data", (first: Buffer) => {
        outbound.write(first.subarray(0, 1));
        setImmediate(() => {
          outbound.write(first.subarray(1));
          inbound.pipe(outbound);
        });
      });
      outbound.pipe(inbound);
      for (const socket of [inbound, outbound]) socket.on("error", () => socket.destroy());
    });
    await new Promise<void>((listening) => splitting.listen(0, "127.0.0.1", listening));
    try {
      const { port } = splitting.address() as AddressInfo;
      expect(await ensured(`https://127.0.0.1:${port}`)).toBe("http://shop.localhost");
    } finally {
      splitting.close();
    }
  });

  test("forgets connections that have ended: their places are free again", async () => {
    for (let n = 0; n < 3 * mostConnections; n++) {
      expect(await ensured(server.url)).toBe("http://shop.localhost");
    }
  }, 60_000);
});
