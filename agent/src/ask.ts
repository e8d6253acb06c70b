/** One HTTP question to an instance on this host. */

/** Who is asked. */
export interface HttpTarget {
  readonly address: string;
  readonly port: number;
  /** Host header: a program that checks it answers its own name alone. Absent: the address. */
  readonly hostName?: string | undefined;
}

export type Answer =
  | { readonly kind: "status"; readonly status: number }
  /** `why` goes on after "failed: " or "was not answered: ". */
  | { readonly kind: "none"; readonly why: string };

/** An answer's head is not longer than this, whatever informational answers come before it. */
const longestHead = 16_384;

/**
 * GET over a socket of its own. Not `fetch`: that shares a bound of 256 requests with the rest of the process and heeds
 * the agent's HTTP_PROXY. Never throws.
 */
export async function ask(
  { address, port, hostName }: HttpTarget,
  path: string,
  withinMs: number,
  signal: AbortSignal,
): Promise<Answer> {
  if (signal.aborted) return { kind: "none", why: "given up" };
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const none = (why: string) => resolve({ kind: "none", why });
  const timer = setTimeout(() => none(`nothing within ${Math.round(withinMs)} ms`), Math.max(1, withinMs));
  const aborted = () => none("given up");
  signal.addEventListener("abort", aborted, { once: true });
  let head = "";
  let heard = 0;
  const connecting = Bun.connect({
    hostname: address,
    port,
    socket: {
      open(socket) {
        socket.write(
          `GET ${path} HTTP/1.1\r\nHost: ${hostName ?? (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`)}\r\nUser-Agent: warren-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
        );
      },
      data(_socket, bytes) {
        heard += bytes.length;
        head += Buffer.from(bytes.subarray(0, longestHead)).toString("latin1");
        // Informational answers (100, 103) come before the real one.
        for (;;) {
          const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1];
          if (!status) break;
          if (!status.startsWith("1")) return resolve({ kind: "status", status: Number(status) });
          const end = head.indexOf("\r\n\r\n");
          if (end < 0) break;
          head = head.slice(end + 4);
        }
        if (heard > longestHead || (head.length >= 5 && !head.startsWith("HTTP/"))) none("that is not HTTP");
      },
      close: () => none("the connection was closed"),
      error: (_socket, error) => none(error.message),
      connectError: (_socket, error) => none(describe(error)),
    },
  });
  connecting.catch((error: Error) => none(describe(error)));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", aborted);
    // A connection that comes up after the deadline is closed then.
    connecting.then(
      (socket) => socket.terminate(),
      () => undefined, // it never came up; that was answered above
    );
  }
}

function describe(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNREFUSED" ? "nothing listens there" : error.message;
}
