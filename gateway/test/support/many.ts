/** The child of many.test.ts: 300 SSE clients over raw sockets, so that only the gateway's own fetch is counted. */
import { waitUntil } from "@warren/common/time";
import { openHouse, upstream } from "./house.ts";
import { rawClient } from "./raw.ts";

const within = { deadlineMs: 10_000 };
const gate = Promise.withResolvers<void>();
await using house = await openHouse();
await using live = upstream((request) => {
  if (new URL(request.url).pathname === "/") return new Response("hello");
  return new Response(
    new ReadableStream({
      async start(controller) {
        controller.enqueue("data: first\n\n");
        await gate.promise;
        controller.enqueue("data: second\n\n");
      },
    }),
    { headers: { "Content-Type": "text/event-stream" } },
  );
});
house.scheduler.publish("live", live.port);
await waitUntil(async () => (await house.ask("live")).ok, within);
const head = "GET /events HTTP/1.1\nHost: live.localhost\n\n";
const clients = await Promise.all(Array.from({ length: 300 }, () => rawClient(house.gateway.port, head)));
await Promise.all(clients.map((client) => client.until("data: first")));
const { inFlight } = house.gateway.stats();
const besides = await (await house.ask("live")).text();
gate.resolve();
await Promise.all(clients.map((client) => client.until("data: second")));
for (const client of clients) client[Symbol.dispose]();
await waitUntil(() => house.gateway.stats().inFlight === 0, within);
const afterwards = house.gateway.stats().inFlight;
process.stdout.write(
  JSON.stringify({ streams: clients.length, inFlight, besides, events: clients.length, afterwards }),
);
