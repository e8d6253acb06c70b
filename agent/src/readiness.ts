/**
 * When an instance can serve. The usual kind: something accepts on its port, that something is its own, and the path it
 * names answers as expected. Asked from 1 ms on, backing off with the time that has passed, so that the wait is never
 * overshot by more than a tenth: polling each 100 ms makes a 7 ms start cost 104 ms. The others: it says so itself, or
 * its process running is enough.
 */
import { pause } from "@warren/common/time";
import { ReadinessKind } from "@warren/proto/common";
import { ask } from "./ask.ts";
import type { PortOwner } from "./host/kernel.ts";

/** What the spec says, with its defaults. */
export interface ReadinessSpec {
  /** Absent in records of agents that knew the port alone. */
  readonly kind?: ReadinessKind;
  /** Asked with GET once the port accepts; "" when accepting is enough. */
  readonly path: string;
  /** Expected; 0 means any from 200 to 399. */
  readonly status: number;
  /** What the spec allows from the spawn on, ms; for the message. */
  readonly timeoutMs: number;
}

/** A way to learn that an instance is ready. */
export interface Readiness {
  /**
   * Waits for it. Never throws but what the probe throws.
   * @param deadlineMs from now
   */
  wait(probe: ReadinessProbe, deadlineMs: number, signal: AbortSignal): Promise<ReadinessOutcome>;
}

/**
 * The way that a spec asks for.
 * @param said aborts when the tenant says that it is ready, perhaps before the wait has begun
 */
export function readinessOf(spec: ReadinessSpec, port: number, said: AbortSignal): Readiness {
  switch (spec.kind) {
    case ReadinessKind.MESSAGE:
      return { wait: (...how) => awaitMessage({ port, said, timeoutMs: spec.timeoutMs }, ...how) };
    case ReadinessKind.NONE:
      return {
        wait: async (_probe, _deadlineMs, signal) =>
          signal.aborted ? { kind: "aborted" } : { kind: "ready", listenMs: 0, answerMs: 0 },
      };
    default:
      return { wait: (...how) => awaitReady({ port, ...spec }, ...how) };
  }
}

export interface ReadinessCheck extends Omit<ReadinessSpec, "kind"> {
  readonly port: number;
}

/** How it came out. */
export type ReadinessOutcome =
  | {
      readonly kind: "ready";
      /** From the begin of the wait until its port accepted or its message came, ms. */
      readonly listenMs: number;
      /** From then until the path answered as expected, ms. */
      readonly answerMs: number;
    }
  /** Another process holds the port: no use to wait. */
  | { readonly kind: "stranger"; readonly message: string }
  /** Not by the deadline; `message` says what was seen last. */
  | { readonly kind: "timeout"; readonly message: string }
  | { readonly kind: "aborted" };

export interface ReadinessProbe {
  /**
   * Whose the port is now: asked when it accepts. On a port that instances of a tenant share, "nobody" means that this
   * one does not listen there yet, though another accepts.
   */
  owner(): PortOwner;
  /** Ports that the instance listens on, for the message. */
  otherPorts(): number[];
}

/** One try to connect or to get an answer takes at most this long. */
const connectMs = 1_000;
const answerMs = 10_000;
const slowestPollMs = 50;
/** After the deadline there is one more look, of at most this long. */
const lastLookMs = 100;

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
  /** When its own socket was first seen among those that accept there; forgotten when nothing accepts any more. */
  let listened: number | undefined;
  let others = false;
  let last = "";
  let isLast = false;
  while (!signal.aborted) {
    let left = deadlineMs - passed();
    if (left <= 0) {
      // An agent that itself stood still has not looked when it should have.
      if (isLast) break;
      isLast = true;
      left = lastLookMs;
    }
    if (await accepts(check.port, Math.min(connectMs, left))) {
      if (listened === undefined) {
        const owner = probe.owner();
        if (owner.kind === "stranger") return stranger(check.port, owner.who);
        if (owner.kind === "instance") listened = passed();
        // Somebody accepted: one who listened a moment ago and does no more, or who shares the port.
        others = owner.kind === "nobody";
      }
      if (listened !== undefined && check.path === "") return readyAt(listened, listened);
      if (listened !== undefined) {
        // On a shared port another instance may answer: all run the same code, and this one listens.
        const patience = Math.min(answerMs, Math.max(lastLookMs, deadlineMs - passed()));
        const answer = await ask(check.port, check.path, patience, signal);
        if (answer.kind === "status" && isExpected(answer.status, check.status)) {
          return readyAt(listened, passed());
        }
        if (answer.kind === "status") {
          last = `it answered ${answer.status} to ${check.path}${check.status ? `, not ${check.status}` : ""}`;
        } else if (last === "" || patience === answerMs) {
          // A question that the deadline cut short says less than an answer before it.
          last = `${check.path} was not answered: ${answer.why}`;
        }
      }
    } else {
      listened = undefined;
      others = false;
      last = "";
    }
    await pause(Math.min(slowestPollMs, Math.max(1, passed() / 10), Math.max(1, left)), signal);
  }
  if (signal.aborted) return { kind: "aborted" };
  return {
    kind: "timeout",
    message: `not ready within ${Math.round(check.timeoutMs)} ms: ${last || nothing(check.port, others, probe)}`,
  };
}

async function awaitMessage(
  check: { readonly port: number; readonly said: AbortSignal; readonly timeoutMs: number },
  probe: ReadinessProbe,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<ReadinessOutcome> {
  const began = performance.now();
  const either = AbortSignal.any([check.said, signal]);
  await pause(Math.max(0, deadlineMs), either);
  // An agent that itself stood still may have its message yet to read.
  await pause(lastLookMs, either);
  if (signal.aborted) return { kind: "aborted" };
  if (!check.said.aborted) {
    const hint = "no ready message came (does it call ready() of @warren/worker?)";
    return { kind: "timeout", message: `not ready within ${Math.round(check.timeoutMs)} ms: ${hint}` };
  }
  // It need not listen, but nobody else may in its place: requests meant for it would go there.
  const owner = probe.owner();
  if (owner.kind === "stranger") return stranger(check.port, owner.who);
  const saidMs = performance.now() - began;
  return readyAt(saidMs, saidMs);
}

/** @param listenedMs, answeredMs since the begin of the wait */
function readyAt(listenedMs: number, answeredMs: number): ReadinessOutcome {
  return { kind: "ready", listenMs: listenedMs, answerMs: answeredMs - listenedMs };
}

function stranger(port: number, who: string): ReadinessOutcome {
  return {
    kind: "stranger",
    message: `port ${port} is held by ${who}, which is no process of this instance`,
  };
}

function nothing(port: number, others: boolean, probe: ReadinessProbe): string {
  const elsewhere = probe.otherPorts().filter((other) => other !== port);
  const instead =
    elsewhere.length > 0 ? `; it listens on ${elsewhere.join(", ")} instead (is PORT ignored?)` : "";
  return `${others ? "it does not itself listen" : "nothing listens"} on 127.0.0.1:${port}${instead}`;
}

/**
 * @param expected 0 means any from 200 to 399
 */
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
