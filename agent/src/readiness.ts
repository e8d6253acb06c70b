/**
 * When an instance can serve: something accepts on its port, that something is its own, and the path it names answers
 * as expected. Asked from 1 ms on, backing off with the time that has passed, so that the wait is never overshot by
 * more than a tenth: polling each 100 ms makes a 7 ms start cost 104 ms.
 */
import { pause } from "@warren/common/time";
import type { PortOwner } from "./listener.ts";

export interface ReadinessCheck {
  readonly port: number;
  /** Asked with GET once the port accepts; "" when accepting is enough. */
  readonly path: string;
  /** Expected; 0 means any from 200 to 399. */
  readonly status: number;
  /** What the spec allows from the spawn on, ms; for the message. */
  readonly timeoutMs: number;
}

/** How it came out. */
export type ReadinessOutcome =
  | { readonly kind: "ready" }
  /** Another process holds the port: no use to wait. */
  | { readonly kind: "stranger"; readonly message: string }
  /** Not by the deadline; `message` says what was seen last. */
  | { readonly kind: "timeout"; readonly message: string }
  | { readonly kind: "aborted" };

export interface ReadinessProbe {
  /** Whose the port is now. */
  owner(): PortOwner;
  /** Ports that the instance listens on, for the message. */
  otherPorts(): number[];
}

/** One try to connect or to get an answer takes at most this long. */
const connectMs = 1_000;
const answerMs = 10_000;
const slowestPollMs = 50;

/**
 * @param deadlineMs from now
 */
export async function awaitReady(
  check: ReadinessCheck,
  probe: ReadinessProbe,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<ReadinessOutcome> {
  const began = performance.now();
  const passed = () => performance.now() - began;
  let owned = false;
  let last = "";
  while (!signal.aborted) {
    const left = deadlineMs - passed();
    if (left <= 0) break;
    if (await accepts(check.port, Math.min(connectMs, left))) {
      const owner: PortOwner = owned ? { kind: "instance" } : probe.owner();
      if (owner.kind === "stranger") {
        return {
          kind: "stranger",
          message: `port ${check.port} is held by ${owner.who}, which is no process of this instance`,
        };
      }
      // "nobody": it listened a moment ago and does no more; asked again.
      owned = owner.kind === "instance";
      if (owned && check.path === "") return { kind: "ready" };
      if (owned) {
        const patience = Math.min(answerMs, deadlineMs - passed());
        const answer = await ask(check.port, check.path, patience, signal);
        if (answer.kind === "status" && isExpected(answer.status, check.status)) return { kind: "ready" };
        if (answer.kind === "status") {
          last = `it answered ${answer.status} to ${check.path}${check.status ? `, not ${check.status}` : ""}`;
        } else if (last === "" || patience === answerMs) {
          // A question that the deadline cut short says less than an answer before it.
          last = `${check.path} was not answered: ${answer.why}`;
        }
      }
    } else {
      owned = false;
      last = "";
    }
    await pause(Math.min(slowestPollMs, Math.max(1, passed() / 10), Math.max(1, left)), signal);
  }
  if (signal.aborted) return { kind: "aborted" };
  return {
    kind: "timeout",
    message: `not ready within ${Math.round(check.timeoutMs)} ms: ${last || nothing(check.port, probe)}`,
  };
}

function nothing(port: number, probe: ReadinessProbe): string {
  const others = probe.otherPorts().filter((other) => other !== port);
  const instead = others.length > 0 ? `; it listens on ${others.join(", ")} instead (is PORT ignored?)` : "";
  return `nothing listens on 127.0.0.1:${port}${instead}`;
}

export function isExpected(status: number, expected: number): boolean {
  return expected === 0 ? status >= 200 && status <= 399 : status === expected;
}

/** Whether a connection to the port is accepted. */
async function accepts(port: number, withinMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), withinMs);
  Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(socket) {
        resolve(true);
        socket.terminate();
      },
      data() {},
      connectError: () => resolve(false),
    },
  }).catch(() => resolve(false));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

type Answer = { kind: "status"; status: number } | { kind: "none"; why: string };

/**
 * GET over a socket of its own. Not `fetch`: that shares a bound of 256 requests with the rest of the process and heeds
 * the agent's HTTP_PROXY.
 */
async function ask(port: number, path: string, withinMs: number, signal: AbortSignal): Promise<Answer> {
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const none = (why: string) => resolve({ kind: "none", why });
  const timer = setTimeout(() => none(`nothing within ${Math.round(withinMs)} ms`), Math.max(1, withinMs));
  const aborted = () => none("given up");
  signal.addEventListener("abort", aborted, { once: true });
  let head = "";
  const connecting = Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(socket) {
        socket.write(
          `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: warren-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
        );
      },
      data(_socket, bytes) {
        head += Buffer.from(bytes).toString("latin1");
        // Informational answers (100, 103) come before the real one.
        for (;;) {
          const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1];
          if (!status) break;
          if (!status.startsWith("1")) return resolve({ kind: "status", status: Number(status) });
          const end = head.indexOf("\r\n\r\n");
          if (end < 0) break;
          head = head.slice(end + 4);
        }
        if (head.length > 16_384 || (head.length >= 5 && !head.startsWith("HTTP/"))) none("that is not HTTP");
      },
      close: () => none("the connection was closed"),
      error: (_socket, error) => none(error.message),
      connectError: (_socket, error) => none(error.message),
    },
  });
  connecting.catch((error: Error) => none(error.message));
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
