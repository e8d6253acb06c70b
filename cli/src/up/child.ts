/**
 * One child of `warren up`: started in a session of its own, so that it outlives a killed parent, known by its ready
 * file, adopted by the next `up` if it still runs with the same arguments, else replaced (an agent hands its tenants to
 * its successor), started again when it ends by itself.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { identify, isAlive, type ProcessIdentity } from "@warren/common/process";
import { backoff, pause, waitUntil } from "@warren/common/time";
import { exitCodes, UserError } from "../exit.ts";
import { handOverSignal, type Ready } from "../processes/run.ts";
import { lastWords, rotateLog, sizeOf } from "./child-log.ts";

export interface ChildOptions {
  /** "scheduler", "agent-n1": its files are named after it. */
  readonly name: string;
  /** The launcher. */
  readonly executable: string;
  /** Verb and flags, but for --ready-file and --port. */
  readonly args: readonly string[];
  /** The port that was asked for; with 0 the first one it gets is kept over its restarts. */
  readonly port: number;
  /** The flag of `up` that says so: "--scheduler-port". */
  readonly portFlag?: string;
  /** The port it had before, under an earlier parent. */
  readonly lastPort?: number;
  readonly readyFile: string;
  readonly logFile: string;
  readonly env: Readonly<Record<string, string>>;
  readonly startDeadlineMs: number;
  /** It leaves what it runs to its successor when it is told that there is one. */
  readonly handsOver?: boolean;
  /** After SIGTERM, until SIGKILL. */
  readonly stopDeadlineMs: number;
  /** Told when it has ended by itself, and when it serves again. */
  readonly onEvent: (event: ChildEvent) => void;
}

export type ChildEvent =
  | { readonly kind: "ended"; readonly name: string }
  | { readonly kind: "back"; readonly name: string }
  | { readonly kind: "failing"; readonly name: string; readonly message: string };

/** So often a child that is not ours (adopted) is looked at, in ms. */
const watchMs = 200;
/** Its log's size is looked at in every so many looks. */
const rotateLooks = 25;

export class Child {
  readonly #options: ChildOptions;
  #identity: ProcessIdentity | undefined;
  #ready: Ready | undefined;
  #stopping = false;
  #port: number;
  #watching: Promise<void> | undefined;
  readonly #stop = new AbortController();
  /** Whether `start` found it running. */
  adopted = false;

  constructor(options: ChildOptions) {
    this.#options = options;
    this.#port = options.port || (options.lastPort ?? 0);
  }

  get name(): string {
    return this.#options.name;
  }

  get pid(): number | undefined {
    return this.#identity?.pid;
  }

  /** Where it is. */
  get facts(): Readonly<Record<string, string>> {
    return this.#ready?.facts ?? {};
  }

  /**
   * Adopts or spawns it, waits until it serves, and keeps it running from then on.
   * @throws UserError with its last words when it does not come up
   */
  async start(): Promise<void> {
    const found = this.#findRunning();
    if (found && found.args === this.#fingerprint()) {
      this.adopted = true;
      this.#identity = found.ready;
      this.#ready = found.ready;
      this.#keepPort();
    } else {
      if (found) await this.#end(found.ready, this.#options.handsOver ? handOverSignal : "SIGTERM");
      await this.#spawnAnew();
    }
    this.#watching = this.#watch();
  }

  /** Ends the process of an earlier parent that is not wanted any more, if it still runs. */
  async dismiss(): Promise<void> {
    this.#identity = this.#findRunning()?.ready;
    await this.stop();
  }

  /** SIGTERM, then SIGKILL; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stop.abort();
    await this.#watching;
    if (this.#identity) await this.#end(this.#identity);
    rmSync(this.#options.readyFile, { force: true });
    rmSync(this.#argsFile(), { force: true });
  }

  #keepPort(): void {
    const { url } = this.facts;
    if (url) this.#port = Number(new URL(url).port);
  }

  #portHint(): string {
    const { portFlag } = this.#options;
    return portFlag === undefined ? "" : `\nof 'warren up' that is ${portFlag}`;
  }

  #argsFile(): string {
    return `${this.#options.readyFile}.args`;
  }

  #fingerprint(): string {
    const { args, env, port } = this.#options;
    return createHash("sha256")
      .update(JSON.stringify([args, env, port]))
      .digest("hex");
  }

  #findRunning(): { ready: Ready; args: string } | undefined {
    try {
      const ready = JSON.parse(readFileSync(this.#options.readyFile, "utf8")) as Ready;
      return isAlive(ready) ? { ready, args: readFileSync(this.#argsFile(), "utf8") } : undefined;
    } catch {
      return undefined; // no file, or half of one: then there is nothing to adopt
    }
  }

  /** The port of an earlier parent's time may be somebody else's by now; nobody waits for this child there yet. */
  async #spawnAnew(): Promise<void> {
    try {
      await this.#spawn();
    } catch (error) {
      if (this.#stopping || this.#options.port !== 0 || this.#port === 0) throw error;
      this.#port = 0;
      await this.#spawn();
    }
  }

  async #spawn(): Promise<void> {
    const { executable, args, readyFile, logFile, env, startDeadlineMs, name } = this.#options;
    if (this.#stopping) throw new UserError(`${name} is not started any more`, exitCodes.interrupted);
    rmSync(readyFile, { force: true });
    writeFileSync(this.#argsFile(), this.#fingerprint(), { mode: 0o600 });
    const log = openSync(logFile, "a", 0o600);
    const begins = sizeOf(logFile); // what earlier processes wrote is not this one's
    let spawned: Bun.Subprocess;
    try {
      spawned = Bun.spawn([executable, ...args, "--port", `${this.#port}`, "--ready-file", readyFile], {
        env,
        stdin: "ignore",
        stdout: log,
        stderr: log,
        detached: true,
      });
    } finally {
      closeSync(log);
    }
    spawned.unref();
    this.#identity = identify(spawned.pid);
    const outcome = await waitUntil(
      () => {
        if (spawned.exitCode !== null || spawned.signalCode !== null) return "ended";
        const ready = this.#findRunning()?.ready;
        if (!ready) return undefined;
        this.#ready = ready;
        this.#identity = ready;
        return "ready";
      },
      { deadlineMs: startDeadlineMs, what: `${name} to serve` },
    ).catch(async (error: Error) => {
      if (this.#identity) await this.#end(this.#identity);
      throw new UserError(`${error.message}\n${lastWords(logFile, begins)}`, 1);
    });
    this.#keepPort();
    if (outcome === "ended") {
      const words = lastWords(logFile, begins);
      const hint = words.includes("is taken by another process") ? this.#portHint() : "";
      throw new UserError(`${name} could not be started:\n${words}${hint}`, 1);
    }
  }

  async #watch(): Promise<void> {
    const { onEvent, name, logFile } = this.#options;
    let looks = 0;
    for (let attempt = 0; !this.#stopping; ) {
      await pause(watchMs, this.#stop.signal);
      if (++looks % rotateLooks === 0) rotateLog(logFile);
      if (this.#stopping || (this.#identity && isAlive(this.#identity))) continue;
      onEvent({ kind: "ended", name });
      const wait =
        attempt === 0
          ? 0
          : backoff({ baseMs: 250, maxMs: 10_000, attempt: attempt - 1, random: Math.random });
      await pause(wait, this.#stop.signal);
      if (this.#stopping) return;
      try {
        const since = performance.now();
        await this.#spawn();
        onEvent({ kind: "back", name });
        // One that came up and stayed for a while has earned a quick restart again.
        attempt = performance.now() - since > 30_000 ? 0 : Math.min(attempt + 1, 3);
      } catch (error) {
        attempt++;
        onEvent({ kind: "failing", name, message: (error as Error).message });
      }
    }
  }

  async #end(identity: ProcessIdentity, how: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (!isAlive(identity)) return;
    signal(identity.pid, how);
    const gone = await waitUntil(() => !isAlive(identity), {
      deadlineMs: this.#options.stopDeadlineMs,
    }).catch(() => false);
    if (gone) return;
    signal(identity.pid, "SIGKILL");
    await waitUntil(() => !isAlive(identity), {
      deadlineMs: 5_000,
      what: `${this.name} (pid ${identity.pid}) to be gone`,
    });
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone in between: that is what was wanted
  }
}
