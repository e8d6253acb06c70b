/**
 * One connection, one request at a time, on a raw socket: `fetch` (and `node:http`, which stands on it under Bun) sends
 * a request again by itself when a kept connection breaks, and so hides what this is here to find.
 */
import type { Socket } from "bun";
import { type Answer, AnswerReader, MalformedError } from "./answer.ts";
import type { FailureKind } from "./options.ts";

/** How one request failed. */
export class RequestError extends Error {
  override readonly name = "RequestError";
  constructor(
    readonly kind: FailureKind,
    message: string,
  ) {
    super(message);
  }
}

interface Waiting {
  readonly reader: AnswerReader;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: RequestError) => void;
}

export class Connection {
  #socket: Socket | undefined;
  #waiting: Waiting | undefined;
  #unwritten = Buffer.alloc(0);
  #closed = false;
  #carried = 0;

  private constructor(private readonly mostBody: number) {}

  /** @throws RequestError "connect" */
  static async open(host: string, port: number, mostBody: number): Promise<Connection> {
    const connection = new Connection(mostBody);
    try {
      connection.#socket = await Bun.connect({
        hostname: host,
        port,
        socket: {
          data: (_, bytes) => connection.#data(bytes),
          end: () => connection.#ended("its end was closed"),
          close: () => connection.#ended("it was closed"),
          error: (_, error) => connection.#ended(error.message),
          drain: () => connection.#flush(),
          connectError: () => {}, // `connect` rejects as well
        },
      });
      connection.#socket.setNoDelay(true);
      return connection;
    } catch (error) {
      throw new RequestError("connect", (error as Error).message);
    }
  }

  /** Whether it can carry a request. */
  get open(): boolean {
    return !this.#closed;
  }

  /** @throws RequestError "broken", "malformed" */
  ask(head: string): Promise<Answer> {
    this.#carried++;
    return new Promise((resolve, reject) => {
      this.#waiting = { reader: new AnswerReader(this.mostBody), resolve, reject };
      this.#unwritten = Buffer.from(head, "latin1");
      this.#flush();
    });
  }

  close(): void {
    this.#ended("closed by ourselves");
  }

  #flush(): void {
    if (this.#unwritten.length === 0 || !this.#socket) return;
    const written = this.#socket.write(this.#unwritten);
    if (written > 0) this.#unwritten = this.#unwritten.subarray(written);
  }

  #data(bytes: Uint8Array): void {
    const waiting = this.#waiting;
    if (!waiting) {
      this.#ended("an answer that nobody asked for");
      return;
    }
    try {
      const answer = waiting.reader.push(bytes);
      if (answer) this.#answered(waiting, answer);
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      this.#fail(new RequestError("malformed", error.message));
    }
  }

  #answered(waiting: Waiting, answer: Answer): void {
    this.#waiting = undefined;
    if (!answer.keepAlive) this.close();
    waiting.resolve(answer);
  }

  #ended(why: string): void {
    if (this.#closed) return;
    const answer = this.#waiting?.reader.end();
    if (answer) this.#answered(this.#waiting!, answer);
    const age = this.#carried > 1 ? `request ${this.#carried} of its connection` : "a new connection";
    const when = this.#waiting?.reader.begun ? "within the answer" : "before the answer";
    this.#fail(new RequestError("broken", `${why} ${when} (${age})`));
  }

  #fail(error: RequestError): void {
    this.#closed = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#socket?.terminate();
    waiting?.reject(error);
  }
}
