/**
 * A tenant that misbehaves when it is asked to, for demonstrations and tests:
 *
 *     /crash           exits 1, at once
 *     /abort           dies by SIGABRT
 *     /hang            never answers
 *     /spin            keeps the processor busy for ?ms= (default 1000), deaf meanwhile
 *     /leak            holds on to ?mib= more (default 16)
 *     /ignore-sigterm  from now on, SIGTERM does nothing
 *     /child           leaves a process in a session of its own
 *
 * CRASH_AT_START=1 exits before it listens; SICK=1 never becomes ready.
 */

if (process.env.CRASH_AT_START) {
  console.error("crashy: I was told to crash at the start");
  process.exit(1);
}

const held: Uint8Array[] = [];

const server = Bun.serve({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  idleTimeout: 0,
  routes: {
    "/healthz": () => (process.env.SICK ? new Response("sick\n", { status: 500 }) : new Response("ok\n")),
    "/": () => new Response(`crashy lives, pid ${process.pid}\n`),
    "/crash": () => {
      console.error("crashy: crashing as asked");
      process.exit(1);
    },
    "/abort": () => process.abort(),
    "/hang": () => new Promise<Response>(() => {}),
    "/spin": (request) => {
      const end = performance.now() + number(request, "ms", 1_000, 60_000);
      while (performance.now() < end);
      return new Response("spun\n");
    },
    "/leak": (request) => {
      const mib = number(request, "mib", 16, 1_024);
      held.push(new Uint8Array(mib * 1024 * 1024).fill(1));
      return new Response(`holding ${held.reduce((sum, bytes) => sum + bytes.length, 0)} bytes\n`);
    },
    "/ignore-sigterm": () => {
      process.on("SIGTERM", () => console.error("crashy: SIGTERM? no"));
      return new Response("SIGTERM is ignored from now on\n");
    },
    "/child": () => {
      const child = Bun.spawn(["setsid", "sleep", "3600"], { stdio: ["ignore", "ignore", "ignore"] });
      child.unref();
      return new Response(`left a child, pid ${child.pid}\n`);
    },
  },
  fetch: () => new Response("not found\n", { status: 404 }),
});

/** A number of the query, within bounds. */
function number(request: Request, name: string, usual: number, most: number): number {
  const value = Number(new URL(request.url).searchParams.get(name) ?? usual);
  return Number.isFinite(value) ? Math.min(most, Math.max(0, value)) : usual;
}

console.log(`crashy listens on ${server.url}`);
