/** A process keeps its certificate valid: it asks the scheduler for a new one of the same kind when a third of its life is left. */
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { EnrolService } from "@warren/proto/scheduler";
import type { Logger } from "../log.ts";
import { credentialFiles, type LiveCredentials } from "../rpc/credentials.ts";
import { connectLeader } from "../rpc/leader.ts";
import { backoff, pause } from "../time.ts";
import { secret } from "./cell.ts";

export interface RenewOptions {
  /** Where the certificate is kept. */
  readonly directory: string;
  readonly credentials: LiveCredentials;
  /** Schedulers, "https://host:port" each. */
  readonly urls: readonly string[];
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A host's clock may step, and a timer cannot wait for years. */
const lookMs = 3_600_000;
const retry = { baseMs: 60_000, maxMs: 86_400_000, random: Math.random };
/** So much of its life before the third that is left begins, at most: hosts that joined together do not ask together. */
const spread = 0.05;

/**
 * When it is to be renewed, ms since 1970.
 * @param random 0 to 1
 */
export function renewalDue(cert: string, random: number): number {
  const { validFrom, validTo } = new X509Certificate(cert);
  const [from, to] = [Date.parse(validFrom), Date.parse(validTo)];
  return to - (to - from) * (1 / 3 + spread * random);
}

/** Goes on until the signal aborts; never throws. What could not be done is said in the log, and tried again. */
export async function keepRenewed(options: RenewOptions): Promise<void> {
  const { credentials, log, signal } = options;
  const random = Math.random();
  for (let attempt = 0; !signal.aborted; ) {
    const leftMs = credentials.cert ? renewalDue(credentials.cert, random) - Date.now() : lookMs;
    if (leftMs > 0) {
      await pause(Math.min(leftMs, lookMs), signal);
      continue;
    }
    try {
      const until = await renewOnce(options);
      log.info({ until }, "the certificate was renewed");
      attempt = 0;
      await pause(lookMs, signal); // were the clocks far apart, it would be due again at once
    } catch (error) {
      if (signal.aborted) return;
      const until = new X509Certificate(credentials.cert!).validTo;
      log.warn(
        { until, why: (error as Error).message },
        "the certificate is not renewed yet, and will expire",
      );
      await pause(backoff({ ...retry, attempt: attempt++ }), signal);
    }
  }
}

/** @returns until when it is valid */
async function renewOnce({ directory, credentials, urls, log, signal }: RenewOptions): Promise<string> {
  const connection = connectLeader({ urls, credentials });
  try {
    const { certificate } = await connection.client(EnrolService).renew({}, { signal });
    const [before, after] = [new X509Certificate(credentials.cert!), new X509Certificate(certificate)];
    if (
      !after.verify(new X509Certificate(credentials.ca).publicKey) ||
      !after.publicKey.equals(before.publicKey)
    )
      throw new Error("what the scheduler has answered is no certificate of this CA for this process's key");
    credentials.renewed(certificate);
    // It is in use; where the directory is not to be written to, it is renewed again after the next start.
    await secret(join(directory, credentialFiles.cert), certificate).catch((error: Error) => {
      log.warn({ why: error.message }, "the renewed certificate is in use, but not kept");
    });
    return after.validTo;
  } finally {
    connection.close();
  }
}
