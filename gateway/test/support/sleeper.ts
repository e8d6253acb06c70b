/** A tenant as a process that can be stopped (SIGSTOP), and the agent that lets it run again. */
import { createLogger } from "@warren/common/log";
import { Code, rpcError } from "@warren/common/rpc/errors";
import { serveRpc } from "@warren/common/rpc/server";
import { AgentService } from "@warren/proto/agent";
import { testCredentials } from "./house.ts";

const script = `
const server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, websocket: { message(ws, m) { ws.send(m); } },
  fetch(request, server) {
    if (new URL(request.url).pathname === "/ws") return server.upgrade(request) ? undefined : new Response("no", { status: 400 });
    if (new URL(request.url).pathname === "/slow") return new Response(new ReadableStream({ async start(c) {
      for (let i = 0; i < 5; i++) { c.enqueue(String(i)); await Bun.sleep(20); } c.close(); } }));
    return new Response("awake");
  } });
console.log(server.port);
`;

export interface Sleeper extends AsyncDisposable {
  readonly port: number;
  readonly agentUrl: string;
  /** Thaws asked for so far. */
  thaws: number;
  /** How thaws go. */
  answer: "thawed" | "full" | "gone";
  freeze(): void;
  /** Takes the agent away; the tenant stays. */
  stopAgent(): Promise<void>;
  startAgent(): Promise<void>;
}

export async function openSleeper(): Promise<Sleeper> {
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const { agent } = await testCredentials();
  let server: Awaited<ReturnType<typeof serveRpc>> | undefined;
  let port = 0;
  const sleeper: Sleeper = {
    port: Number(new TextDecoder().decode(value)),
    get agentUrl() {
      return `https://127.0.0.1:${port}`;
    },
    thaws: 0,
    answer: "thawed",
    freeze: () => child.kill("SIGSTOP"),
    async startAgent() {
      server = await serveRpc({
        name: "scripted agent",
        port,
        credentials: agent,
        log: createLogger({ process: "test", level: "silent" }),
        routes: (router) => {
          router.service(AgentService, {
            thawInstance: () => {
              sleeper.thaws++;
              if (sleeper.answer === "full") throw rpcError(Code.ResourceExhausted, "enough are awake");
              if (sleeper.answer === "gone") throw rpcError(Code.NotFound, "not here");
              child.kill("SIGCONT");
              return { wakes: BigInt(sleeper.thaws) };
            },
          });
        },
      });
      port = server.port;
    },
    async stopAgent() {
      await server?.stop(0);
    },
    async [Symbol.asyncDispose]() {
      await server?.stop(0);
      child.kill("SIGKILL");
      await child.exited;
    },
  };
  await sleeper.startAgent();
  return sleeper;
}
