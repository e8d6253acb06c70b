/**
 * A strict open-loop load generator: requests leave at fixed times whatever becomes of those before them, and a request's
 * latency counts from the time at which it should have left. Nothing is repeated and nothing is repaired: a kept
 * connection that breaks under a request is that request's failure. (One that was closed while it lay idle had no request:
 * it is dropped, and the next request opens another.)
 */
import { pause, withDeadline } from "@warren/common/time";
import { Connection, RequestError } from "./connection.ts";
import { type LoadOptions, type LoadReport, type LoadTarget, type Settings, settingsOf } from "./options.ts";
import { Tally } from "./tally.ts";

export interface Load {
  /** So far. */
  readonly ok: number;
  readonly failed: number;
  /** Resolves when all is sent and answered. */
  readonly done: Promise<LoadReport>;
  /** Sends nothing more, waits for what is under way. */
  stop(): Promise<LoadReport>;
}

/** @throws TypeError naming an option that cannot be */
export function startLoad(options: LoadOptions): Load {
  const generator = new Generator(settingsOf(options));
  const done = generator.run();
  return {
    get ok() {
      return generator.tally.ok;
    },
    get failed() {
      return generator.tally.failed;
    },
    done,
    stop() {
      generator.stop();
      return done;
    },
  };
}

/** A target, made ready to be asked. */
class Endpoint {
  readonly name: string;
  readonly #head: string;
  readonly #idle: Connection[] = [];
  readonly #host: string;
  readonly #port: number;

  constructor(
    target: LoadTarget,
    private readonly settings: Settings,
  ) {
    const url = new URL(target.url);
    const host = target.host ?? url.host;
    this.name = `${host}${url.pathname}`;
    this.#host = url.hostname.replace(/^\[|\]$/g, "");
    this.#port = Number(url.port || 80);
    const connection = settings.keepAlive ? "keep-alive" : "close";
    this.#head = `GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${host}\r\nConnection: ${connection}\r\nAccept: */*\r\n\r\n`;
  }

  /** @param onSent told once the request is on its way. @throws RequestError */
  async ask(deadline: number, onSent: () => void): Promise<void> {
    const { maxBodyBytes, status, body, keepAlive } = this.settings;
    const left = () => Math.max(1, deadline - performance.now());
    let connection = this.#take();
    if (!connection) {
      const opening = Connection.open(this.#host, this.#port, maxBodyBytes);
      try {
        connection = await withDeadline(opening, left(), "connecting");
      } catch (error) {
        opening.then(
          (late) => late.close(),
          () => {},
        );
        throw error;
      }
    }
    onSent();
    const asked = connection.ask(this.#head);
    asked.catch(() => {}); // after a timeout nobody listens any more
    try {
      const answer = await withDeadline(asked, left(), "the answer");
      if (keepAlive && connection.open) this.#idle.push(connection);
      if (answer.status !== status)
        throw new RequestError("status", `${answer.status} ${answer.body.slice(0, 120)}`);
      if (body && !body.test(answer.body)) throw new RequestError("body", answer.body.slice(0, 120));
    } catch (error) {
      if (!(error instanceof RequestError)) connection.close();
      throw error;
    } finally {
      if (!keepAlive) connection.close();
    }
  }

  close(): void {
    for (const connection of this.#idle.splice(0)) connection.close();
  }

  /** The one that was used last: those that a burst has left over are closed by the server when their time has come. */
  #take(): Connection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (!connection || connection.open) return connection;
    }
  }
}

class Generator {
  readonly tally = new Tally();
  readonly #endpoints: readonly Endpoint[];
  readonly #stopping = new AbortController();
  readonly #open = new Set<Promise<void>>();
  #start = 0;

  constructor(private readonly settings: Settings) {
    this.#endpoints = settings.targets.map((target) => new Endpoint(target, settings));
  }

  stop(): void {
    this.#stopping.abort();
  }

  async run(): Promise<LoadReport> {
    const { rate, durationMs } = this.settings;
    const { signal } = this.#stopping;
    const count = Math.floor((rate * durationMs) / 1000);
    this.#start = performance.now();
    for (let n = 0; n < count && !signal.aborted; ) {
      const due = this.#start + (n * 1000) / rate;
      const now = performance.now();
      if (due > now) await pause(due - now, signal);
      else this.#send(n++, due, now);
    }
    await Promise.all(this.#open);
    for (const endpoint of this.#endpoints) endpoint.close();
    return this.tally.report();
  }

  #send(n: number, due: number, now: number): void {
    const { tally } = this;
    const { maxInFlight } = this.settings;
    const endpoint = this.#endpoints[n % this.#endpoints.length]!;
    tally.due++;
    tally.late(now - due);
    if (this.#open.size >= maxInFlight) {
      tally.fail("overflow", due - this.#start, endpoint.name, `${maxInFlight} requests are under way`);
      return;
    }
    const request = this.#one(endpoint, due).finally(() => this.#open.delete(request));
    this.#open.add(request);
  }

  async #one(endpoint: Endpoint, due: number): Promise<void> {
    const { tally } = this;
    try {
      await endpoint.ask(due + this.settings.timeoutMs, () => tally.sent++);
      tally.succeeded(performance.now() - due);
    } catch (error) {
      const kind = error instanceof RequestError ? error.kind : "timeout";
      tally.fail(kind, due - this.#start, endpoint.name, (error as Error).message);
    }
  }
}
