/** What a load is, and what came of it. All of it is JSON, so that it can go to another process and back. */

export interface LoadTarget {
  /** "http://127.0.0.1:8080/path": where to connect. No name is looked up but the one in it. */
  readonly url: string;
  /** Host header; default: the URL's own. */
  readonly host?: string;
}

export interface LoadOptions {
  /** Asked in turn. */
  readonly targets: readonly LoadTarget[];
  /** Requests a second, over all targets. */
  readonly rate: number;
  /** How long requests are sent, ms; answers are waited for after that. At most 10 minutes. */
  readonly durationMs: number;
  /** From the intended time until the whole answer, ms. Default 10 s. */
  readonly timeoutMs?: number;
  /** Default 200. */
  readonly status?: number;
  /** A regular expression that the body must match. Default: any body. */
  readonly body?: string;
  /** Most requests under way; one more is not sent and fails as "overflow". Default 1,000. */
  readonly maxInFlight?: number;
  /** Whether connections carry more than one request. Default true. */
  readonly keepAlive?: boolean;
  /** Largest body, bytes. Default 1 MiB. */
  readonly maxBodyBytes?: number;
}

/**
 * - `connect`: no connection
 * - `broken`: the connection ended before the whole answer had come
 * - `timeout`: not answered in time
 * - `status`, `body`: not what was expected
 * - `malformed`: no HTTP
 * - `overflow`: not sent, too many under way
 */
export type FailureKind = "connect" | "broken" | "timeout" | "status" | "body" | "malformed" | "overflow";

export interface Failures {
  readonly kind: FailureKind;
  readonly count: number;
  /** The first five in words: when (ms after the start), where, what. */
  readonly samples: readonly string[];
}

export interface LoadReport {
  /** Requests whose time had come: all that a perfect generator had sent. */
  readonly due: number;
  /** Of these, sent. The others failed as "overflow" or "connect". */
  readonly sent: number;
  readonly ok: number;
  readonly failed: number;
  readonly failures: readonly Failures[];
  /** Of those that succeeded, ms from the intended time until the whole answer; 0 without any. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** The most that the generator itself was late with a request, ms: large, and it was starved, whatever it measured. */
  readonly lagMs: number;
}

export type Settings = Required<Omit<LoadOptions, "body">> & { readonly body: RegExp | undefined };

const mostRequests = 1_000_000;
const longestMs = 600_000;

/** @throws TypeError naming what cannot be */
export function settingsOf(options: LoadOptions): Settings {
  const { targets, rate, durationMs } = options;
  if (targets.length === 0) throw new TypeError("targets: at least one is needed");
  for (const { url } of targets) {
    if (new URL(url).protocol !== "http:") throw new TypeError(`targets: ${url} is not http://`);
  }
  if (!(rate > 0)) throw new TypeError("rate: must be above 0");
  if (!(durationMs > 0 && durationMs <= longestMs)) throw new TypeError(`durationMs: at most ${longestMs}`);
  if ((rate * durationMs) / 1000 > mostRequests) throw new TypeError(`at most ${mostRequests} requests`);
  return {
    timeoutMs: 10_000,
    status: 200,
    maxInFlight: 1_000,
    keepAlive: true,
    maxBodyBytes: 2 ** 20,
    ...options,
    body: options.body === undefined ? undefined : new RegExp(options.body),
  };
}
