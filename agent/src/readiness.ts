/**
 * When an instance can serve. The usual kind: something accepts on its port, that something is its own, and the path it
 * names answers as expected. Asked from 1 ms on, backing off with the time that has passed, so that the wait is never
 * overshot by more than a tenth: polling each 100 ms makes a 7 ms start cost 104 ms. The others: it says so itself, or
 * its process running is enough.
 */
import { pause } from "@warren/common/time";
import { ReadinessKind } from "@warren/proto/common";
import { accepts } from "./accepts.ts";
import { loopback } from "./address.ts";
import { ask } from "./ask.ts";
import type { PortOwner } from "./host/kernel.ts";
import { elsewhereText, type Whereabouts } from "./whereabouts.ts";

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
  /**
   * One that listens, but only where it cannot be served, is given up after so long, ms: it will not come to its port by
   * waiting. Absent where the spec names a timeout, which is waited for to its end.
   */
  readonly elsewhereMs?: number;
  /** Host header of the question: its own name, as its visitors say it. Absent: the address. */
  readonly hostName?: string;
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
          signal.aborted ? { kind: "aborted" } : readyAt(loopback, 0, 0),
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
      /** Where it accepts, if not at 127.0.0.1. */
      readonly address?: string;
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
  /** Where the instance itself listens. */
  whereabouts(): Whereabouts;
  /** Address by which gateways reach it, for the message. */
  readonly tenantHost: string;
}

/** One try to connect or to get an answer takes at most this long. */
const connectMs = 1_000;
const answerMs = 10_000;
const slowestPollMs = 50;
/** After the deadline there is one more look, of at most this long. */
const lastLookMs = 100;
/** Where else it listens is asked less often the longer nothing accepts: it costs a walk over its open files. */
const firstElsewhereMs = 30;
const slowestElsewhereMs = 1_000;

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
  let address = loopback;
  /** When it is looked for elsewhere, and since when it was only there. */
  let lookAt = firstElsewhereMs;
  let elsewhere: number | undefined;
  while (!signal.aborted) {
    let left = deadlineMs - passed();
    if (left <= 0) {
      // An agent that itself stood still has not looked when it should have.
      if (isLast) break;
      isLast = true;
      left = lastLookMs;
    }
    if (await accepts(address, check.port, Math.min(connectMs, left))) {
      elsewhere = undefined;
      if (listened === undefined) {
        const owner = probe.owner();
        if (owner.kind === "stranger") return stranger(check.port, owner.who);
        if (owner.kind === "instance") listened = passed();
        // Somebody accepted: one who listened a moment ago and does no more, or who shares the port.
        others = owner.kind === "nobody";
      }
      if (listened !== undefined && check.path === "") return readyAt(address, listened, listened);
      if (listened !== undefined) {
        // On a shared port another instance may answer: all run the same code, and this one listens.
        const patience = Math.min(answerMs, Math.max(lastLookMs, deadlineMs - passed()));
        const target = { address, port: check.port, hostName: check.hostName };
        const answer = await ask(target, check.path, patience, signal);
        if (answer.kind === "status" && isExpected(answer.status, check.status)) {
          return readyAt(address, listened, passed());
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
      address = loopback;
      if (passed() >= lookAt || isLast) {
        lookAt = passed() + Math.min(slowestElsewhereMs, Math.max(firstElsewhereMs, passed()));
        const found = probe.whereabouts();
        if (found.kind === "reachable" && found.address !== loopback) {
          address = found.address;
          continue;
        }
        if (found.kind !== "elsewhere") elsewhere = undefined;
        else {
          elsewhere ??= passed();
          last = elsewhereText(found.listeners, check.port, probe.tenantHost);
          if (passed() - elsewhere >= (check.elsewhereMs ?? Number.POSITIVE_INFINITY)) {
            return { kind: "timeout", message: `not ready: ${last}` };
          }
        }
      }
    }
    await pause(Math.min(slowestPollMs, Math.max(1, passed() / 10), Math.max(1, left)), signal);
  }
  if (signal.aborted) return { kind: "aborted" };
  return {
    kind: "timeout",
    message: `not ready within ${Math.round(check.timeoutMs)} ms: ${last || nothing(check.port, others)}`,
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
  const found = probe.whereabouts();
  return readyAt(found.kind === "reachable" ? found.address : loopback, saidMs, saidMs);
}

/** @param listenedMs, answeredMs since the begin of the wait */
function readyAt(address: string, listenedMs: number, answeredMs: number): ReadinessOutcome {
  return {
    kind: "ready",
    listenMs: listenedMs,
    answerMs: answeredMs - listenedMs,
    ...(address === loopback ? {} : { address }),
  };
}

function stranger(port: number, who: string): ReadinessOutcome {
  return {
    kind: "stranger",
    message: `port ${port} is held by ${who}, which is no process of this instance`,
  };
}

function nothing(port: number, others: boolean): string {
  return `${others ? "it does not itself listen" : "nothing listens"} on ${loopback}:${port}`;
}

/**
 * @param expected 0 means any from 200 to 399
 */
export function isExpected(status: number, expected: number): boolean {
  return expected === 0 ? status >= 200 && status <= 399 : status === expected;
}
