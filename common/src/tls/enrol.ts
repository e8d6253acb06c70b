/**
 * A host comes by its credentials: it makes its key pair itself, takes the scheduler's CA by the fingerprint in its join
 * token, and only to a server that this CA has signed it shows the token and asks for a certificate.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Role } from "@warren/proto/common";
import { type EnrolRequestSchema, type EnrolResponse, EnrolService } from "@warren/proto/scheduler";
import { credentialFiles } from "../rpc/credentials.ts";
import { Code, isRpcCode } from "../rpc/errors.ts";
import { connectLeader } from "../rpc/leader.ts";
import { roleName } from "../rpc/roles.ts";
import { backoff, pause } from "../time.ts";
import { createKey, signingRequest } from "./ca.ts";
import { loopbackHosts, secret } from "./cell.ts";
import { grantsName, hostsFor, type JoinToken, JoinTokenError, readJoinToken } from "./join-token.ts";
import { PinError, pinnedCa } from "./pinned.ts";

export interface EnrolOptions {
  /** Where the credentials are to be. */
  readonly directory: string;
  readonly token: string;
  /** What it is to be called: the node's name, or the gateway's. */
  readonly name: string;
  readonly role: Role;
  /** Schedulers, "https://host:port" each. */
  readonly urls: readonly string[];
  /** A name or address that others will reach it by, if there is one: the certificate must hold it. */
  readonly host?: string;
  /** How long it goes on asking while no scheduler can be reached, ms; default 60 s. */
  readonly patienceMs?: number;
  /** Told why it has to wait. */
  readonly onWaiting?: (why: string) => void;
}

/** Of each handshake and call. */
const stepMs = 10_000;
const retry = { baseMs: 200, maxMs: 5_000, random: Math.random };

/** Whether there is something in that directory that a join token must not replace. */
export function hasCredentials(directory: string): boolean {
  return existsSync(join(directory, credentialFiles.cert));
}

/**
 * Gets credentials and stores them. Broken off at any point it can be done again with the same token: the key is on disk
 * before it is asked for, and the scheduler answers the same key again.
 * @throws JoinTokenError when the token is not good for that; PinError when the server is another cell's; ConnectError
 * when the scheduler refuses, or cannot be reached in time
 */
export async function enrol(options: EnrolOptions): Promise<void> {
  const { directory, name, urls, patienceMs = 60_000, onWaiting } = options;
  const token = readJoinToken(options.token);
  check(token, options);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const key = await keyIn(directory);
  const request = { token: options.token, name, signingRequest: await signingRequest(key) };
  const began = performance.now();
  for (let attempt = 0; ; attempt++) {
    try {
      const ca = await anyPinned(urls, token.ca);
      const { certificate, tokenKey } = await ask(urls, ca, request);
      verify(certificate, ca, key);
      await secret(join(directory, credentialFiles.ca), ca);
      await secret(join(directory, credentialFiles.tokenKey), tokenKey);
      await secret(join(directory, credentialFiles.cert), certificate); // last: with it they are there
      return;
    } catch (error) {
      const transient = isRpcCode(error, Code.Unavailable, Code.DeadlineExceeded, Code.ResourceExhausted);
      const wait = backoff({ ...retry, attempt });
      if (!transient || performance.now() - began + wait > patienceMs) throw error;
      onWaiting?.((error as Error).message);
      await pause(wait);
    }
  }
}

/** What the scheduler would refuse, and what would show only later: said before the token is used. */
function check(token: JoinToken, { role, name, host }: EnrolOptions): void {
  const isFor = (what: string, not: string) => {
    throw new JoinTokenError(`the join token is for ${what}, not for ${not}`);
  };
  if (token.role !== role) isFor(`a process of role ${roleName(token.role)}`, roleName(role));
  if (!grantsName(token, name)) isFor(token.names, name);
  if (token.expiresAt <= Date.now())
    throw new JoinTokenError("the join token has expired: make a new one ('warren token create')");
  const hosts = [...loopbackHosts, ...hostsFor(token, name)];
  if (host !== undefined && !hosts.includes(host)) {
    throw new JoinTokenError(
      `others are to reach ${name} by ${host}, but the join token is for ${hosts.join(", ")}: make one with '--host ${host}'`,
    );
  }
}

/** The key that an earlier try has left, else a new one. */
async function keyIn(directory: string): Promise<string> {
  const path = join(directory, credentialFiles.key);
  if (existsSync(path)) return readFile(path, "utf8");
  const key = await createKey();
  await secret(path, key);
  return key;
}

/** From the first that can be reached: one of another cell is not passed over, since something is wrong then. */
async function anyPinned(urls: readonly string[], fingerprint: string): Promise<string> {
  let last: unknown;
  for (const url of urls) {
    try {
      return await pinnedCa(url, fingerprint, stepMs);
    } catch (error) {
      if (!isRpcCode(error, Code.Unavailable)) throw error;
      last = error;
    }
  }
  throw last;
}

async function ask(
  urls: readonly string[],
  ca: string,
  request: MessageInitShape<typeof EnrolRequestSchema>,
): Promise<EnrolResponse> {
  const connection = connectLeader({ urls, credentials: { ca } });
  try {
    return await connection.client(EnrolService).enrol(request, { timeoutMs: stepMs });
  } finally {
    connection.close();
  }
}

/** What the scheduler signed is to be for this key: else every later call would fail with a riddle. */
function verify(certificate: string, ca: string, key: string): void {
  const own = new X509Certificate(certificate);
  if (!own.verify(new X509Certificate(ca).publicKey) || !own.checkPrivateKey(createPrivateKey(key)))
    throw new PinError(
      "the scheduler's certificate for this host is not signed by its CA, or for another key",
    );
}
