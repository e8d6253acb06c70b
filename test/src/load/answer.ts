/**
 * Reads one HTTP/1.1 answer as it arrives, and takes nothing that is ambiguous: a generator that forgives cannot tell a
 * cut answer from a whole one.
 */

export interface Answer {
  readonly status: number;
  readonly body: string;
  /** Whether the connection may carry another request. */
  readonly keepAlive: boolean;
}

/** The bytes are no answer. */
export class MalformedError extends Error {
  override readonly name = "MalformedError";
}

const mostHead = 64 * 1024;

type Framing = { kind: "head" } | { kind: "length"; left: number } | { kind: "chunked" } | { kind: "close" };

export class AnswerReader {
  #framing: Framing = { kind: "head" };
  #bytes = Buffer.alloc(0);
  readonly #body: Buffer[] = [];
  #bodyBytes = 0;
  #status = 0;
  #keepAlive = true;

  /** @param mostBody bytes; a longer body is malformed */
  constructor(private readonly mostBody: number) {}

  /** Whether anything has come. */
  get begun(): boolean {
    return this.#framing.kind !== "head" || this.#bytes.length > 0;
  }

  /** @returns the answer once it is whole. @throws MalformedError */
  push(chunk: Uint8Array): Answer | undefined {
    this.#bytes = this.#bytes.length ? Buffer.concat([this.#bytes, chunk]) : Buffer.from(chunk);
    return this.#step();
  }

  /** The connection has ended. @returns the answer, if that was its end */
  end(): Answer | undefined {
    return this.#framing.kind === "close" ? this.#whole(false) : undefined;
  }

  #step(): Answer | undefined {
    while (this.#framing.kind === "head") {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end < 0) {
        if (this.#bytes.length > mostHead) throw new MalformedError(`a head of more than ${mostHead} bytes`);
        return undefined;
      }
      const head = this.#bytes.subarray(0, end).toString("latin1");
      this.#bytes = this.#bytes.subarray(end + 4);
      this.#framing = this.#framingOf(head);
    }
    switch (this.#framing.kind) {
      case "length": {
        const taken = this.#bytes.subarray(0, this.#framing.left);
        this.#framing.left -= taken.length;
        this.#bytes = this.#bytes.subarray(taken.length);
        this.#take(taken);
        return this.#framing.left === 0 ? this.#whole(true) : undefined;
      }
      case "close":
        this.#take(this.#bytes);
        this.#bytes = Buffer.alloc(0);
        return undefined;
      case "chunked":
        return this.#chunks();
    }
  }

  #framingOf(head: string): Framing {
    const [first = "", ...lines] = head.split("\r\n");
    const status = /^HTTP\/1\.1 (\d{3})(?: |$)/.exec(first)?.[1];
    if (status === undefined) throw new MalformedError(`no status line: ${first.slice(0, 80)}`);
    this.#status = Number(status);
    const headers = new Map<string, string>();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon < 1) throw new MalformedError(`no header: ${line.slice(0, 80)}`);
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
    }
    if (this.#status < 200) return { kind: "head" }; // an interim answer: the real one follows
    this.#keepAlive = headers.get("connection")?.toLowerCase() !== "close";
    const length = headers.get("content-length");
    const coding = headers.get("transfer-encoding");
    if (this.#status === 204 || this.#status === 304) return { kind: "length", left: 0 };
    if (length !== undefined && coding !== undefined) throw new MalformedError("both lengths");
    if (coding !== undefined) {
      if (coding.toLowerCase() !== "chunked") throw new MalformedError(`transfer-encoding: ${coding}`);
      return { kind: "chunked" };
    }
    if (length === undefined) return { kind: "close" };
    if (!/^\d{1,15}$/.test(length)) throw new MalformedError(`content-length: ${length}`);
    return { kind: "length", left: Number(length) };
  }

  #chunks(): Answer | undefined {
    for (;;) {
      const end = this.#bytes.indexOf("\r\n");
      if (end < 0) return undefined;
      const line = this.#bytes.subarray(0, end).toString("latin1");
      if (!/^[0-9a-f]{1,8}$/i.test(line)) throw new MalformedError(`no chunk size: ${line.slice(0, 80)}`);
      const size = Number.parseInt(line, 16);
      const after = end + 2 + size;
      if (size > this.mostBody) throw new MalformedError(`a body of more than ${this.mostBody} bytes`);
      if (this.#bytes.length < after + 2) return undefined;
      if (this.#bytes.toString("latin1", after, after + 2) !== "\r\n")
        throw new MalformedError("a chunk without its end"); // trailers count as that: nobody sends us any
      this.#take(this.#bytes.subarray(end + 2, after));
      this.#bytes = this.#bytes.subarray(after + 2);
      if (size === 0) return this.#whole(true);
    }
  }

  #take(bytes: Buffer): void {
    this.#bodyBytes += bytes.length;
    if (this.#bodyBytes > this.mostBody)
      throw new MalformedError(`a body of more than ${this.mostBody} bytes`);
    if (bytes.length) this.#body.push(Buffer.from(bytes)); // a copy: the socket uses its buffer again
  }

  #whole(framed: boolean): Answer {
    if (this.#bytes.length > 0) throw new MalformedError("more bytes than the answer has");
    return {
      status: this.#status,
      body: Buffer.concat(this.#body).toString("utf8"),
      keepAlive: framed && this.#keepAlive,
    };
  }
}
