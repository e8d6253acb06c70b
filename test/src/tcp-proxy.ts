/** A way to a TCP server that can be cut and mended, as a network does: for one process, or for all of them. */
import { createServer, type Server, Socket } from "node:net";

export class TcpProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #cut = false;
  #deaf = false;

  private constructor(
    readonly port: number,
    server: Server,
    private readonly target: { host: string; port: number },
  ) {
    this.#server = server;
    server.on("connection", (client) => this.#join(client));
  }

  /** @param target "nats://127.0.0.1:4222", or any other URL with a host and a port */
  static async to(target: string): Promise<TcpProxy> {
    const { hostname: host, port } = new URL(target.replace(/^\w+:/, "http:"));
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port: own } = server.address() as { port: number };
    return new TcpProxy(own, server, { host, port: Number(port) });
  }

  /** Breaks all connections; new ones are broken at once. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** What clients send arrives nowhere, and they are not told; answers still come. */
  deafen(): void {
    this.#deaf = true;
  }

  mend(): void {
    this.#cut = false;
    if (this.#deaf) for (const socket of this.#sockets) socket.destroy(); // their streams have holes
    this.#deaf = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }

  #join(client: Socket): void {
    if (this.#cut) {
      client.destroy();
      return;
    }
    const upstream = new Socket();
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      this.#sockets.add(one);
      one.on("error", () => {}); // it closes as well
      one.on("close", () => {
        this.#sockets.delete(one);
        other.destroy();
      });
    }
    client.on("data", (chunk) => {
      if (!this.#deaf && !upstream.write(chunk)) client.pause();
    });
    upstream.on("drain", () => client.resume());
    upstream.on("data", (chunk) => {
      if (!client.write(chunk)) upstream.pause();
    });
    client.on("drain", () => upstream.resume());
    upstream.connect(this.target.port, this.target.host);
  }
}
