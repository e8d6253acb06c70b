/**
 * The pools of the systems that Warren is compared with, by their own defaults and with their way of starting a tenant:
 * at the cap the one that was not used for longest is ended. They are rebuilt here, since neither is in a registry.
 */
import { join } from "node:path";
import { pause } from "@warren/common/time";
import type { Holder } from "./crowd.ts";

/** Where the pinned `bun` is. */
const bunBin = join(import.meta.dir, "../../../tools/node_modules/.bin");

const startMs = 20_000;

/** A running tenant of a pool. */
interface Running {
  readonly port: number;
  end(): Promise<void>;
}

/** In the order of their last use. */
class Pool implements Holder {
  readonly #running = new Map<string, Running>();
  #evictions = 0;

  constructor(
    readonly name: string,
    private readonly cap: number,
    private readonly start: () => Promise<Running>,
  ) {}

  async ask(tenant: string): Promise<string | undefined> {
    let one = this.#running.get(tenant);
    this.#running.delete(tenant);
    if (!one) {
      if (this.#running.size >= this.cap) {
        const [oldest, victim] = this.#running.entries().next().value!;
        this.#running.delete(oldest);
        this.#evictions++;
        await victim.end();
      }
      one = await this.start();
    }
    this.#running.set(tenant, one);
    return textOf(one.port);
  }

  live = async () => this.#running.size;
  evictions = async () => this.#evictions;

  /** Ends all of them. */
  async end(): Promise<void> {
    const left = [...this.#running.values()];
    this.#running.clear();
    await Promise.all(left.map((one) => one.end()));
  }
}

/** `@absolutejs/runtime` 0.1: 100 processes of `bun run start`, each asked every 100 ms whether it answers. */
export function processPool(directory: string): Pool {
  return new Pool("@absolutejs/runtime's defaults (100 × `bun run start`)", 100, async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = listener;
    listener.stop(true);
    const child = Bun.spawn([process.execPath, "run", "start"], {
      cwd: directory,
      env: { PATH: `${bunBin}:${process.env.PATH}`, HOME: directory, HOST: "127.0.0.1", PORT: `${port}` },
      stdio: ["ignore", "ignore", "ignore"],
      detached: true, // `bun run` does not pass a signal on: its group is ended
    });
    const end = async () => {
      if (child.exitCode === null) process.kill(-child.pid, "SIGKILL");
      await child.exited;
    };
    for (const deadline = performance.now() + startMs; ; await pause(100)) {
      if ((await textOf(port)) !== undefined) return { port, end };
      if (performance.now() > deadline) {
        await end();
        throw new Error("a tenant of the process pool did not answer");
      }
    }
  });
}

/** Buntime: up to 500 Worker threads in one process. */
export function threadPool(file: string): Pool {
  return new Pool("Buntime's pool (500 threads of one process)", 500, async () => {
    const worker = new Worker(file);
    const port = await new Promise<number>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data as number);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    const end = async () => worker.terminate();
    return { port, end };
  });
}

/** The body; undefined when nothing answers with 200. */
async function textOf(port: number): Promise<string | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      keepalive: false,
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    return response.ok ? text : undefined;
  } catch {
    return undefined;
  }
}
