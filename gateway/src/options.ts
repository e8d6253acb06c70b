/** What a gateway can be told, and what it assumes. */
import type { Logger } from "@warren/common/log";
import { ports } from "@warren/common/ports";
import type { Credentials } from "@warren/common/rpc/credentials";
import { patience } from "@warren/common/rpc/patience";

/** Options of {@link startGateway}. Every one but the first three has a default. */
export interface GatewayOptions {
  /** Name of this gateway, as a rule its node's; its id is this and a ULID. */
  readonly name: string;
  /** "https://host:port" of the cell's schedulers; any one suffices to find the leader. */
  readonly schedulerUrls: readonly string[];
  /** Of the role gateway; a certificate is needed for the admin server. */
  readonly credentials: Credentials;

  /** Address for tenant HTTP. Default 127.0.0.1; a public gateway listens on 0.0.0.0. */
  readonly host?: string;
  /** Port for tenant HTTP; 0 takes a free one. Default {@link ports.gateway}. */
  readonly port?: number;
  /** Tenants answer at `<tenant>.<domain>`, and at `/<tenant>/` of the bare domain or an address. Default "localhost". */
  readonly domain?: string;
  /**
   * How tenants are reached from outside, "{tenant}" standing for the key: what Ensure answers as URL. Default
   * "http://{tenant}.<domain>:<port>".
   */
  readonly publicUrl?: string;
  /**
   * Addresses of proxies of the operator's own ("10.0.0.0/8"), whose X-Forwarded-* and Forwarded are believed. Default
   * none: whatever a client sends of these is replaced.
   */
  readonly trustForwarded?: readonly string[];

  /** Address of health, reflection and metrics (TLS). Default 127.0.0.1. */
  readonly adminHost?: string;
  /** Port of the same; 0 takes a free one, null serves none. Default {@link ports.gatewayAdmin}. */
  readonly adminPort?: number | null;

  /** How long a request waits for its tenant to start. Default 45 s. */
  readonly holdDeadlineMs?: number;
  /** How long such a request waits while no scheduler can be reached; one that is started again takes about 2 s. Default 5 s. */
  readonly absenceMs?: number;
  /** Most requests that wait for one tenant. Default 1,000. */
  readonly maxHeldPerTenant?: number;
  /** Most requests that wait. Default 10,000. */
  readonly maxHeld?: number;
  /** From the request until the tenant's answer begins. Default 5 min. */
  readonly answerDeadlineMs?: number;
  /** A connection on which nobody asks anything is closed after it; streams are not. At most 255 s. Default 60 s. */
  readonly idleConnectionMs?: number;

  /** Largest message of a WebSocket. Default 16 MiB. */
  readonly maxMessageBytes?: number;
  /** Bytes of a WebSocket that wait for a slow reader before the other side is paused. Default 1 MiB. */
  readonly socketBufferBytes?: number;

  /** Between two batches of uses. Default 250 ms. */
  readonly touchIntervalMs?: number;
  /** Between two reports of traffic; killed, it loses what was not reported. Default 5 s. */
  readonly trafficIntervalMs?: number;
  /** A watch silent for so long is made anew; the scheduler says something each 2 s. Default 7 s. */
  readonly watchSilenceMs?: number;
  /** How long `stop()` lets requests finish. Default 10 s. */
  readonly drainMs?: number;

  /** Default: JSON on stderr. */
  readonly log?: Logger;
}

/** Options with their defaults. */
export type Settings = Required<Omit<GatewayOptions, "log" | "schedulerUrls" | "credentials" | "publicUrl">>;

/** @throws TypeError naming the option that cannot be */
export function settingsOf(options: GatewayOptions): Settings {
  const settings: Settings = {
    name: options.name,
    host: options.host ?? "127.0.0.1",
    port: options.port ?? ports.gateway,
    domain: (options.domain ?? "localhost").toLowerCase().replace(/\.$/, ""),
    trustForwarded: options.trustForwarded ?? [],
    adminHost: options.adminHost ?? "127.0.0.1",
    adminPort: options.adminPort === undefined ? ports.gatewayAdmin : options.adminPort,
    holdDeadlineMs: options.holdDeadlineMs ?? patience.hold,
    absenceMs: options.absenceMs ?? 5_000,
    maxHeldPerTenant: options.maxHeldPerTenant ?? 1_000,
    maxHeld: options.maxHeld ?? 10_000,
    answerDeadlineMs: options.answerDeadlineMs ?? 300_000,
    idleConnectionMs: options.idleConnectionMs ?? 60_000,
    maxMessageBytes: options.maxMessageBytes ?? 16 * 1024 * 1024,
    socketBufferBytes: options.socketBufferBytes ?? 1024 * 1024,
    touchIntervalMs: options.touchIntervalMs ?? 250,
    trafficIntervalMs: options.trafficIntervalMs ?? 5_000,
    watchSilenceMs: options.watchSilenceMs ?? 7_000,
    drainMs: options.drainMs ?? 10_000,
  };
  if (!/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(settings.domain)) {
    throw new TypeError(`domain: "${settings.domain}" is no domain name`);
  }
  // A gateway's id is its name, a dash and a ULID, in at most 128 characters.
  if (!/^[\w.-]{1,100}$/.test(settings.name)) {
    throw new TypeError(`name: "${settings.name}" must be 1 to 100 letters, digits, dots and dashes`);
  }
  for (const [key, value] of Object.entries(settings)) {
    const least = key === "port" || key === "adminPort" || key === "drainMs" ? 0 : 1;
    if (typeof value === "number" && !(value >= least))
      throw new TypeError(`${key}: must be at least ${least}`);
  }
  return settings;
}
