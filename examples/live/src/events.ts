/** A stream of server-sent events: the time, each `every` ms, until the client leaves. */
export function events(every: number): Response {
  let timer: ReturnType<typeof setInterval> | undefined;
  let id = 0;
  const stream = new ReadableStream<string>({
    start(controller) {
      const tell = () =>
        controller.enqueue(`id: ${++id}\nevent: tick\ndata: ${new Date().toISOString()}\n\n`);
      tell();
      timer = setInterval(() => {
        // A reader that does not keep up misses ticks; they are not kept for it.
        if ((controller.desiredSize ?? 0) > -100) tell();
      }, every);
    },
    cancel() {
      clearInterval(timer);
    },
  });
  return new Response(stream, {
    headers: { "Content-Type": "text/event-stream", "Cache-Control": "no-store" },
  });
}
