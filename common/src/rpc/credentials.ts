/** What a process shows to others and believes of others. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** PEM texts and a token; never logged. */
export interface Credentials {
  /** The cell's CA: only certificates it signed are believed. */
  readonly ca: string;
  /** This process's own certificate, whose subject carries its role (OU) and name (CN). Servers need one. */
  readonly cert?: string;
  readonly key?: string;
  /** A bearer token, for those without a certificate. */
  readonly token?: string;
  /** Public half (SPKI PEM) of the key that signs the cell's tokens; servers need it. */
  readonly tokenKey?: string;
}

/** Those of a process that renews its certificate while it runs: its servers and its next connections show the new one. */
export class LiveCredentials implements Credentials {
  readonly ca: string;
  readonly key?: string;
  readonly token?: string;
  readonly tokenKey?: string;
  #cert: string | undefined;
  readonly #told: (() => void)[] = [];

  constructor({ ca, cert, key, token, tokenKey }: Credentials) {
    this.ca = ca;
    this.key = key;
    this.token = token;
    this.tokenKey = tokenKey;
    this.#cert = cert;
  }

  get cert(): string | undefined {
    return this.#cert;
  }

  /** @param cert for the same key */
  renewed(cert: string): void {
    this.#cert = cert;
    for (const tell of this.#told) tell();
  }

  /** For as long as the process runs. */
  onRenewed(tell: () => void): void {
    this.#told.push(tell);
  }
}

/** Credentials could not be read; the message names the file and the remedy. */
export class CredentialsError extends Error {
  override readonly name = "CredentialsError";
}

/** Names of the files in a credentials directory. */
export const credentialFiles = {
  ca: "ca.crt",
  cert: "tls.crt",
  key: "tls.key",
  token: "token",
  tokenKey: "tokens.pub",
} as const;

/**
 * Reads a credentials directory as `warren up` writes one per process.
 * @throws CredentialsError when the CA is missing or a file cannot be read
 */
export function loadCredentials(directory: string): Credentials {
  const read = (file: string): string | undefined => {
    try {
      return readFileSync(join(directory, file), "utf8").trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw new CredentialsError(`cannot read ${join(directory, file)}: ${(error as Error).message}`);
    }
  };
  const ca = read(credentialFiles.ca);
  if (!ca) {
    throw new CredentialsError(
      `no ${credentialFiles.ca} in ${directory}: is this a credentials directory of a Warren cell? ('warren up' makes them below its state directory, 'warren ca issue' for other hosts)`,
    );
  }
  return {
    ca,
    cert: read(credentialFiles.cert),
    key: read(credentialFiles.key),
    token: read(credentialFiles.token),
    tokenKey: read(credentialFiles.tokenKey),
  };
}
