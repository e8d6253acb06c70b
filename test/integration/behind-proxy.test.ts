/** A platform's usual place: behind a proxy that has the certificate. The proxies are real, and set up as the guide says. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { startCell, type TestCell } from "../src/cell.ts";
import { cli, type Ran, run } from "../src/cli.ts";
import { domain, type Front, fronts, isInstalled, startFront } from "../src/front-proxy.ts";

const app = `
let streams = 0;
Bun.serve({
  port: process.env.PORT,
  hostname: process.env.HOST,
  fetch(request, server) {
    const { headers } = request;
    const { pathname, search } = new URL(request.url);
    const own = headers.get("x-forwarded-proto") + "://" + headers.get("host");
    if (pathname === "/socket") return server.upgrade(request) ? undefined : new Response("", { status: 400 });
    if (pathname === "/stream") {
      streams++;
      request.signal.addEventListener("abort", () => streams--);
      const stream = new ReadableStream({ start: (c) => c.enqueue("data: first\\n\\n") });
      return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
    }
    if (pathname === "/streams") return new Response(String(streams));
    // As SvelteKit, Rails and others do.
    if (request.method === "POST" && headers.get("origin") !== own) return new Response("cross-site", { status: 403 });
    const secure = headers.get("x-forwarded-proto") === "https" ? { "Set-Cookie": "__Host-s=1; Secure; Path=/" } : {};
    return Response.json({ own, search, headers: Object.fromEntries(headers) }, { headers: secure });
  },
  websocket: { message: (socket, text) => void socket.send("echo " + text) },
});
`;

let directory: string;
let cell: TestCell;
let gatewayPort: number;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-behind-"));
  const source = join(directory, "app");
  await mkdir(source);
  await writeFile(join(source, "index.ts"), app);
  cell = await startCell({
    domain,
    publicUrl: `https://{tenant}.${domain}`,
    trustForwarded: ["127.0.0.1"],
    isolation: "none",
  });
  gatewayPort = Number(new URL(cell.cell.cluster.gateway).port);
  const deployed = await cli(["deploy", source, "--name", "shop", "--ready", "/"], {
    env: { WARREN_STATE: cell.state },
  });
  expect(deployed.stderr).toBe("");
  expect(deployed.stdout).toEndWith(`\nhttps://shop.${domain}\n`);
}, 60_000);
afterAll(async () => {
  await cell?.stop();
  await rm(directory, { recursive: true, force: true });
});

interface Echo {
  readonly own: string;
  readonly search: string;
  readonly headers: Record<string, string>;
}

describe.each(Object.keys(fronts) as (keyof typeof fronts)[])("behind %s", (name) => {
  let front: Front;
  const needs = isInstalled(name) ? test : test.skip;
  const title = (what: string) => (isInstalled(name) ? what : `${what} (needs ${name})`);
  beforeAll(async () => {
    if (isInstalled(name)) front = await startFront(name, gatewayPort, directory);
  }, 30_000);
  afterAll(() => front?.[Symbol.asyncDispose]());

  const host = () => `shop.${domain}:${front.port}`;
  const curl = (path: string, ...more: string[]): Promise<Ran> =>
    run(
      [
        ...["curl", "-sS", "--max-time", "20", "--cacert", front.ca],
        ...["--resolve", `${host()}:127.0.0.1`, ...more, `https://${host()}${path}`],
      ],
      { env: { PATH: process.env.PATH ?? "" } },
    );
  const echo = async (path: string, ...more: string[]): Promise<Echo> => {
    const { stdout, stderr } = await curl(path, ...more);
    expect(stderr).toBe("");
    return JSON.parse(stdout) as Echo;
  };

  for (const version of ["--http1.1", "--http2"]) {
    needs(title(`a tenant learns how its visitor came, and from where (${version})`), async () => {
      const { own, search, headers } = await echo("/x?y=1", version);
      expect(own).toBe(`https://${host()}`);
      expect(search).toBe("?y=1");
      expect(headers).toMatchObject({
        host: host(),
        "x-forwarded-for": "127.0.0.1, 127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": host(),
        "x-forwarded-port": String(front.port),
      });
    });
  }

  needs(title("what a visitor says of itself does not get through"), async () => {
    const lies = {
      "X-Forwarded-For": "6.6.6.6",
      "X-Forwarded-Proto": "gopher",
      "X-Forwarded-Host": "evil.example",
      "X-Forwarded-Port": "1",
      "X-Forwarded-Prefix": "/evil",
      "X-Real-IP": "6.6.6.6",
      Forwarded: "for=6.6.6.6;host=evil.example",
    };
    const { own, headers } = await echo(
      "/",
      ...Object.entries(lies).flatMap(([key, value]) => ["-H", `${key}: ${value}`]),
    );
    expect(own).toBe(`https://${host()}`);
    expect(JSON.stringify(headers)).not.toMatch(/6\.6\.6\.6|evil|gopher/);
  });

  needs(title("a form is no cross-site one, and a secure cookie is kept"), async () => {
    const jar = join(directory, `${name}.cookies`);
    const posted = await echo("/", "-d", "a=1", "-H", `Origin: https://${host()}`, "-c", jar);
    expect(posted.own).toBe(`https://${host()}`);
    expect((await curl("/", "-d", "a=1", "-H", "Origin: https://evil.example")).stdout).toBe("cross-site");
    expect((await echo("/", "-b", jar)).headers.cookie).toBe("__Host-s=1");
  });

  needs(title("plain http is sent to https"), async () => {
    const address = `shop.${domain}:${front.plainPort}`;
    const { stdout } = await run(
      [
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
        "--resolve",
        `${address}:127.0.0.1`,
        `http://${address}/a`,
      ],
      { env: { PATH: process.env.PATH ?? "" } },
    );
    expect(stdout).toMatch(new RegExp(`^30[18] https://shop.${domain}`));
  });

  needs(
    title("server-sent events come as they are written, and the tenant hears when a visitor leaves"),
    async () => {
      const stop = new AbortController();
      const answer = await fetch(`https://127.0.0.1:${front.port}/stream`, {
        headers: { Host: host() },
        tls: { rejectUnauthorized: false, serverName: `shop.${domain}` },
        signal: stop.signal,
      } as RequestInit);
      const { value } = await answer.body!.getReader().read();
      expect(new TextDecoder().decode(value)).toBe("data: first\n\n");
      expect((await curl("/streams")).stdout).toBe("1");
      stop.abort();
      const isLeft = async () => (await curl("/streams")).stdout === "0";
      await waitUntil(isLeft, { deadlineMs: 10_000, what: "the tenant to hear that the visitor left" });
    },
  );

  needs(title("WebSockets pass"), async () => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const options = {
      headers: { Host: host() },
      tls: { rejectUnauthorized: false, serverName: `shop.${domain}` },
    };
    const socket = new WebSocket(`wss://127.0.0.1:${front.port}/socket`, options as unknown as string[]);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = ({ data }) => resolve(String(data));
    socket.onerror = (event) => reject(new Error((event as ErrorEvent).message));
    expect(await promise).toBe("echo hello");
    socket.close();
  });
});

test("who is no trusted proxy is a client itself, also on this machine", async () => {
  await using stranger = await startCell({ isolation: "none" });
  const { WARREN_STATE } = { WARREN_STATE: stranger.state };
  await cli(["deploy", join(directory, "app"), "--name", "shop"], { env: { WARREN_STATE } });
  const headers = { "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Real-IP": "6.6.6.6" };
  const answer = (await (await stranger.get("shop", "/", { headers })).json()) as Echo;
  expect(answer.headers).toMatchObject({
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "http",
    "x-real-ip": "127.0.0.1",
  });
}, 60_000);
