/** The apps that are started, and starting them by nothing but `Bun.spawn`: what an agent's start is compared with. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pause } from "@warren/common/time";

export interface App {
  readonly name: string;
  readonly directory: string;
  /** Below the directory. */
  readonly entry: string;
  /** Answers 200 once it can serve. */
  readonly path: string;
}

const examples = join(import.meta.dir, "../../../examples");

function example(name: string): App {
  return { name, directory: join(examples, name), entry: "src/index.ts", path: "/healthz" };
}

export const hello = example("hello");
export const api = example("api");

/** @throws Error naming the remedy */
export function assertInstalled(app: App): void {
  const manifest = join(app.directory, "bun.lock");
  if (existsSync(manifest) && !existsSync(join(app.directory, "node_modules"))) {
    throw new Error(`the packages of examples/${app.name} are not installed: make setup`);
  }
}

export interface BareChild {
  readonly pid: number;
  /** From just before the spawn until its first successful answer, ms. */
  readonly startMs: number;
  /** Signals and waits for its exit; answers how long that took, ms. */
  stop(): Promise<number>;
}

const answerDeadlineMs = 20_000;

/**
 * Spawns the app, and asks it each millisecond until it answers 200.
 * @param home kept from one start to the next, as a host's is: Bun keeps there what it has transpiled
 * @param signal ends the child
 */
export async function startBare(app: App, home: string, signal: AbortSignal): Promise<BareChild> {
  const port = await freePort();
  const began = performance.now();
  const child = Bun.spawn([process.execPath, join(app.directory, app.entry)], {
    cwd: app.directory,
    env: { PATH: process.env.PATH, HOME: home, NODE_ENV: "production", HOST: "127.0.0.1", PORT: `${port}` },
    stdio: ["ignore", "ignore", "ignore"],
    signal,
    killSignal: "SIGKILL",
  });
  const stop = async () => {
    const asked = performance.now();
    child.kill("SIGTERM");
    await child.exited;
    return performance.now() - asked;
  };
  while (!(await answers(port, app.path))) {
    if (child.exitCode !== null || performance.now() - began > answerDeadlineMs) {
      child.kill("SIGKILL");
      throw new Error(`${app.name} did not answer (exit code ${child.exitCode})`);
    }
    await pause(1);
  }
  return { pid: child.pid, startMs: performance.now() - began, stop };
}

/** Whether GET answers 200. A socket of its own, as the agent asks: no client's pool or set-up is in the figure. */
function answers(port: number, path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(socket) {
        socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`);
      },
      data(socket, bytes) {
        resolve(Buffer.from(bytes).toString("latin1").startsWith("HTTP/1.1 200"));
        socket.terminate();
      },
      close: () => resolve(false),
      error: () => resolve(false),
      connectError: () => resolve(false),
    },
  }).catch(() => resolve(false)); // nothing listens yet
  return promise;
}

async function freePort(): Promise<number> {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
