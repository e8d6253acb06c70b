/** A client that shows the bytes. */
import { connect, type Socket } from "node:net";
import { waitUntil } from "@warren/common/time";

export interface RawClient extends Disposable {
  readonly socket: Socket;
  /** All that has come, as latin1. */
  text(): string;
  readonly closed: boolean;
  /** Waits until what has come contains that. */
  until(text: string): Promise<void>;
}

export async function rawClient(port: number, head: string): Promise<RawClient> {
  let text = "";
  let closed = false;
  const socket = connect(port, "127.0.0.1");
  socket.on("data", (data) => {
    text += data.toString("latin1");
  });
  socket.on("close", () => {
    closed = true;
  });
  socket.on("error", () => {});
  socket.write(head.replaceAll("\n", "\r\n"));
  return {
    socket,
    text: () => text,
    get closed() {
      return closed;
    },
    async until(part) {
      await waitUntil(() => text.includes(part) || closed, { deadlineMs: 5_000, what: `"${part}"` });
      if (!text.includes(part)) throw new Error(`closed before "${part}" came: ${text}`);
    },
    [Symbol.dispose]: () => socket.destroy(),
  };
}
