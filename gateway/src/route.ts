/** An instance as this gateway sees it. */
import type { Version } from "./version.ts";

/**
 * - `open`: requests go to it.
 * - `sealed`: nothing goes to it until the scheduler names it again (a newer version, or the answer to an Ensure made
 *   after the seal): it may be about to be frozen or stopped.
 * - `withdrawn`: nothing goes to it, unless its lost node comes back with it; what is in flight may finish.
 */
export type Standing = "open" | "sealed" | "withdrawn";

/** One instance. Only the table changes it; the proxy holds it while a request is in flight. */
export interface Route {
  /** Instance's id. */
  readonly id: string;
  readonly tenant: string;
  readonly node: string;
  readonly slot: number;
  readonly generation: bigint;
  host: string;
  port: number;
  version: Version;
  standing: Standing;
  /** It is frozen, as far as is known: a request there needs a thaw (rouser.ts). */
  asleep: boolean;
  /** Requests, streams and WebSockets open now. */
  inFlight: number;
  /** Monotonic ms of the last beginning or end of a request; before the first, of when it was learnt. */
  lastUse: number;
  /** It has answered over a connection that may now be in fetch's pool. */
  pooled: boolean;
  /** A request there broke off: until it answers again, each request gets a connection of its own, so that "refused" is certain. */
  doubted: boolean;
  /** A request ended there, since this gateway knows the instance. */
  used: boolean;
  /** A connection to it was refused: passed over until then (monotonic ms). */
  suspectUntil: number;
  /** Tick of the table at which it was sealed, and the time. */
  sealedTick: number;
  sealedAt: number;
  /** Of its last pick: ties go to the one that waited longest. */
  picked: number;
}

/** `host:port` as a URL wants it. */
export function authority(route: Route): string {
  return `${route.host.includes(":") ? `[${route.host}]` : route.host}:${route.port}`;
}
