/**
 * One line to the agent and the line that it answers, over a connection of its own: an agent that died and was replaced
 * since the last message is no special case.
 */

/** What the agent answers to a line. */
export type Reply = { readonly kind: "ok" } | { readonly kind: "error"; readonly message: string };

/** What becomes of a connection. `failed` may follow anything, and more than once. */
interface Events {
  text(text: string): void;
  failed(why: string): void;
}

interface Connection {
  /** Closes it, now or as soon as it is there. */
  close(): void;
}

/** More than this is no answer of an agent. */
const longestReply = 4_096;

/**
 * @param socket path of the agent's unix socket
 * @param withinMs until the answer
 * @param keepsAlive whether the process stays for the answer, had it nothing else to do
 * @throws Error saying why there is no answer
 */
export async function exchange(
  socket: string,
  type: "ready" | "heartbeat",
  withinMs: number,
  keepsAlive: boolean,
): Promise<Reply> {
  const line = `${JSON.stringify({ v: 1, type })}\n`;
  let connection: Connection | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const answer = await new Promise<string>((resolve, reject) => {
      const failed = (why: string) => reject(new Error(why));
      timer = setTimeout(() => failed(`no answer within ${Math.round(withinMs)} ms`), withinMs);
      if (!keepsAlive) timer.unref();
      let said = "";
      const text = (more: string) => {
        said += more;
        const end = said.indexOf("\n");
        if (end >= 0) resolve(said.slice(0, end));
        else if (said.length > longestReply) failed("the answer has no end");
      };
      const dial = typeof Bun === "undefined" ? dialNode : dialBun;
      connection = dial(socket, line, keepsAlive, { text, failed });
    });
    return parseReply(answer);
  } finally {
    clearTimeout(timer);
    connection?.close();
  }
}

/** @throws Error for what is no answer */
function parseReply(line: string): Reply {
  const reply = JSON.parse(line) as { readonly type?: unknown; readonly message?: unknown } | null;
  if (reply?.type === "ok") return { kind: "ok" };
  if (reply?.type === "error") return { kind: "error", message: String(reply.message) };
  throw new Error("what answers does not speak as an agent does");
}

/** Bun's own sockets: loading node:net and connecting with it costs 19 ms there, twice a whole start; this costs 1.5. */
function dialBun(path: string, line: string, keepsAlive: boolean, on: Events): Connection {
  const connecting = Bun.connect({
    unix: path,
    socket: {
      open(socket) {
        if (!keepsAlive) socket.unref();
        socket.write(line);
      },
      data: (_socket, bytes) => on.text(bytes.toString()),
      close: () => on.failed("the agent closed the connection"),
      error: (_socket, error) => on.failed(describe(error)),
      connectError: (_socket, error) => on.failed(describe(error)),
    },
  });
  connecting.catch((error: unknown) => on.failed(describe(error)));
  return {
    close: () =>
      void connecting.then(
        (socket) => socket.terminate(),
        () => undefined, // it never came up; that was told above
      ),
  };
}

function dialNode(path: string, line: string, keepsAlive: boolean, on: Events): Connection {
  const connecting = import("node:net").then(({ connect }) => {
    const socket = connect(path, () => socket.write(line));
    if (!keepsAlive) socket.unref();
    socket.setEncoding("utf8");
    socket.on("data", (text) => on.text(String(text)));
    socket.on("close", () => on.failed("the agent closed the connection"));
    socket.on("error", (error) => on.failed(describe(error)));
    return socket;
  });
  connecting.catch((error: unknown) => on.failed(describe(error)));
  return {
    close: () =>
      void connecting.then(
        (socket) => socket.destroy(),
        () => undefined, // it never came up; that was told above
      ),
  };
}

function describe(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  if (code === "ENOENT" || code === "ECONNREFUSED") return `no agent is there (${code})`;
  return error instanceof Error ? error.message : String(error);
}
