/** The smallest tenant: answers, and tells which process answered. */

const server = Bun.serve({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  routes: {
    "/healthz": new Response("ok"),
    "/": () => new Response(`hello from pid ${process.pid}\n`),
  },
  fetch: () => new Response("not found\n", { status: 404 }),
});

console.log(`hello listens on ${server.url}`);
