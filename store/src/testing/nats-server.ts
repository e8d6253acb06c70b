/**
 * A real nats-server with JetStream for tests and demos, with its own store in a temporary directory and a port of its
 * own choosing that it keeps over restarts.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pause } from "@warren/common/time";
import { Deadline } from "../time.ts";

export interface NatsServer extends AsyncDisposable {
  /** `nats://127.0.0.1:<port>` */
  readonly url: string;
  /** Where it keeps everything. */
  readonly directory: string;
  /** Of the running process; undefined while it is stopped. */
  readonly pid: number | undefined;
  /** Ends it as a crash does, and waits until it is gone. */
  kill9(): Promise<void>;
  /** Ends it in order (SIGTERM, after 5 s SIGKILL). */
  stop(): Promise<void>;
  /** Starts it again on the same port and store, ending it (kill -9) first if it runs. */
  restart(): Promise<void>;
  /** Stops its clock: it keeps its connections and answers nothing, as behind a network that drops everything. */
  pause(): Promise<void>;
  resume(): void;
}

export interface NatsServerOptions {
  /** More arguments of nats-server, `["--auth", "secret"]` for example. */
  readonly args?: readonly string[];
  /** The executable. Default: `nats-server` on PATH. */
  readonly command?: string;
}

const READY_MS = 10_000;
const STOP_MS = 5000;

/** @throws Error saying what to install when there is no nats-server, or with its log when it does not become ready */
export async function startNatsServer(options: NatsServerOptions = {}): Promise<NatsServer> {
  const command = options.command ?? Bun.which("nats-server");
  if (command === null) {
    throw new Error(
      "nats-server is not on PATH: install it (apt-get install nats-server, brew install nats-server, or https://github.com/nats-io/nats-server/releases)",
    );
  }
  const server = new ServerProcess(command, options.args ?? []);
  try {
    await server.start();
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

class ServerProcess implements NatsServer {
  readonly directory = mkdtempSync(join(tmpdir(), "warren-nats-"));
  readonly #log = join(this.directory, "log");
  #port: number | undefined;
  #child: Bun.Subprocess | undefined;
  // Should the tests' process end early, by an exception or process.exit.
  readonly #atExit = () => {
    this.#child?.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  };

  constructor(
    readonly command: string,
    readonly args: readonly string[],
  ) {
    process.on("exit", this.#atExit);
  }

  get url(): string {
    return `nats://127.0.0.1:${this.#port}`;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(): Promise<void> {
    const child = Bun.spawn({
      cmd: [
        this.command,
        ...["-a", "127.0.0.1", "-p", String(this.#port ?? -1), "--ports_file_dir", this.directory],
        ...["-js", "-sd", join(this.directory, "store"), "-l", this.#log],
        ...this.args,
      ],
      stdio: ["ignore", "ignore", "ignore"],
    });
    this.#child = child;
    const deadline = new Deadline(READY_MS);
    while (!(await this.#ready(child.pid))) {
      if (child.exitCode !== null || deadline.passed) {
        throw new Error(
          `${this.command} did not become ready (exit code ${child.exitCode}):\n${this.#logTail()}`,
        );
      }
      await pause(10);
    }
  }

  async kill9(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async restart(): Promise<void> {
    await this.kill9();
    await this.start();
  }

  async pause(): Promise<void> {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    this.#child?.kill("SIGSTOP");
    const deadline = new Deadline(STOP_MS);
    while (!stopped(pid) && !deadline.passed) await pause(1);
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill9();
    process.off("exit", this.#atExit);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    child.kill(signal);
    if (signal === "SIGTERM") {
      const exited = new AbortController();
      void child.exited.then(() => exited.abort());
      await pause(STOP_MS, exited.signal);
      child.kill("SIGKILL");
    }
    await child.exited;
    this.#child = undefined;
  }

  /** It names its ports in a file, and greets on the port once JetStream is up. */
  async #ready(pid: number): Promise<boolean> {
    this.#port ??= this.#portOf(pid);
    return this.#port !== undefined && greets(this.#port);
  }

  #portOf(pid: number): number | undefined {
    try {
      const ports = JSON.parse(readFileSync(join(this.directory, `nats-server_${pid}.ports`), "utf8")) as {
        nats: string[];
      };
      return Number(new URL(ports.nats[0] ?? "").port) || undefined;
    } catch {
      return undefined; // not written yet, or half
    }
  }

  #logTail(): string {
    try {
      return readFileSync(this.#log, "utf8").slice(-2000);
    } catch {
      return "(no log)";
    }
  }
}

/** Whether all its threads stand still; a signal takes effect a little after it was sent. */
function stopped(pid: number): boolean {
  if (process.platform !== "linux") return true;
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.every((thread) => / T /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8")));
}

function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    const answer = (ready: boolean) => {
      socket.destroy();
      resolve(ready);
    };
    socket.setTimeout(1000, () => answer(false));
    socket.once("error", () => answer(false));
    socket.once("data", (data) =>
      answer(data.toString().startsWith("INFO") && data.toString().includes('"jetstream":true')),
    );
  });
}
