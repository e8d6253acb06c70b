/** Streams: server-sent events at /events, a WebSocket that echoes at /ws, and a page that shows both. */
import { events } from "./events.ts";
import page from "./page.html" with { type: "text" };

const server = Bun.serve({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  routes: {
    "/healthz": new Response("ok"),
    "/": new Response(String(page), { headers: { "Content-Type": "text/html; charset=utf-8" } }),
    "/events": (request, server) => {
      server.timeout(request, 0); // a quiet stream is no dead one
      const every = Number(new URL(request.url).searchParams.get("every") ?? 1000);
      return events(Math.min(60_000, Math.max(10, every || 1000)));
    },
    "/ws": (request, server) => {
      const protocol = request.headers.get("sec-websocket-protocol")?.split(",")[0]?.trim();
      const headers = protocol ? { "Sec-WebSocket-Protocol": protocol } : undefined;
      if (server.upgrade(request, { headers })) return undefined;
      return new Response("this is a WebSocket\n", { status: 426, headers: { Upgrade: "websocket" } });
    },
  },
  fetch: () => new Response("not found\n", { status: 404 }),
  websocket: {
    message(socket, message) {
      socket.send(message);
    },
  },
});

console.log(`live listens on ${server.url}`);
