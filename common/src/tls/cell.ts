/**
 * A cell's secrets on disk, as `warren up` and `warren ca` make them: the CA and the token key (which only issuing needs), and one
 * credentials directory per process. Everything is 0600 in directories of 0700.
 *
 *     <directory>/ca.crt ca.key tokens.key tokens.pub
 *     <directory>/<name>/ca.crt tls.crt tls.key token tokens.pub
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { type Credentials, CredentialsError, credentialFiles, loadCredentials } from "../rpc/credentials.ts";
import { type CertificateAuthority, cellOf, createCa, issueCertificate } from "./ca.ts";
import { createTokenKeys, issueToken } from "./tokens.ts";

/** Issues credentials for the processes of one cell. */
export interface CellSecrets {
  readonly cell: string;
  readonly directory: string;
  readonly ca: CertificateAuthority;
  /** Private half (PEM) of the key that signs the cell's tokens. */
  readonly tokenKey: string;
  /** The directory of that name's credentials, made if it is not there yet. */
  credentialsFor(
    name: string,
    role: Role,
    hosts?: readonly string[],
    options?: IssueOptions,
  ): Promise<Issued>;
}

export interface IssueOptions {
  /** Make it anew even if it is there. */
  readonly renew?: boolean;
  /** Validity of its token in ms; default: ten years. */
  readonly tokenTtlMs?: number;
}

/** Roles of people and tools: they show a token. Certificates are for the cluster's own processes. */
export const tokenRoles: ReadonlySet<Role> = new Set([Role.CLIENT, Role.METRICS]);

export interface Issued {
  readonly directory: string;
  readonly credentials: Credentials;
  /** Whether it was made now; else it is as it was, whatever was asked for. */
  readonly isNew: boolean;
}

/** What only issuing needs. */
const files = { caKey: "ca.key", tokensKey: "tokens.key" } as const;

/** Where every process on one machine can be reached. */
export const loopbackHosts = ["localhost", "127.0.0.1", "::1"] as const;

/** Opens the cell's secrets in `directory`, making them if there are none. */
export async function openCellSecrets(directory: string, cell: string): Promise<CellSecrets> {
  if (!hasCellSecrets(directory)) await makeCellSecrets(directory, cell);
  return readCellSecrets(directory);
}

export function hasCellSecrets(directory: string): boolean {
  return existsSync(join(directory, files.caKey));
}

/**
 * The CA alone, for a process that signs with it: it needs neither the token key nor anything that was issued.
 * @throws CredentialsError when it is not there
 */
export async function readCa(directory: string): Promise<CertificateAuthority> {
  const read = (file: string) =>
    readFile(join(directory, file), "utf8").catch((error: Error) => {
      throw new CredentialsError(`no CA in ${directory}: ${error.message}`);
    });
  const [cert, key] = await Promise.all([read(credentialFiles.ca), read(files.caKey)]);
  return { cert, key };
}

/** Makes a CA and a token key. With those before them, every credential that they signed would be worth nothing. */
async function makeCellSecrets(directory: string, cell: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const [ca, tokens] = await Promise.all([createCa(cell), createTokenKeys()]);
  await secret(join(directory, credentialFiles.tokenKey), tokens.publicKey);
  await secret(join(directory, files.tokensKey), tokens.privateKey);
  await secret(join(directory, credentialFiles.ca), ca.cert);
  await secret(join(directory, files.caKey), ca.key); // last: with it, the cell counts as made
}

/**
 * Those that are there; the CA's certificate says of which cell.
 * @throws CredentialsError when there are none
 */
export async function readCellSecrets(directory: string): Promise<CellSecrets> {
  const at = (file: string) => join(directory, file);
  if (!hasCellSecrets(directory)) {
    throw new CredentialsError(
      `no CA in ${directory}: make one with 'warren ca init', or name its directory with --dir`,
    );
  }
  const read = (file: string) => readFile(at(file), "utf8");
  const [caCert, caKey, tokenKey, tokenPublic] = await Promise.all([
    read(credentialFiles.ca),
    read(files.caKey),
    read(files.tokensKey),
    read(credentialFiles.tokenKey),
  ]);
  const ca = { cert: caCert, key: caKey };
  const cell = cellOf(caCert);
  return {
    cell,
    directory,
    ca,
    tokenKey,
    /** @param hosts names and addresses that its server is called by; default: those of this machine for itself */
    async credentialsFor(name, role, hosts = loopbackHosts, { renew = false, tokenTtlMs } = {}) {
      const own = at(name);
      const isNew = renew || !existsSync(join(own, credentialFiles.token));
      if (isNew) {
        await mkdir(own, { recursive: true, mode: 0o700 });
        const pair = await issueCertificate(ca, { cell, role, name, hosts });
        await secret(join(own, credentialFiles.ca), caCert);
        await secret(join(own, credentialFiles.tokenKey), tokenPublic);
        if (!tokenRoles.has(role)) {
          await secret(join(own, credentialFiles.cert), pair.cert);
          await secret(join(own, credentialFiles.key), pair.key);
        }
        await secret(
          join(own, credentialFiles.token),
          await issueToken(tokenKey, { cell, role, name }, tokenTtlMs),
        );
      }
      return { directory: own, credentials: loadCredentials(own), isNew };
    },
  };
}

/** Writes it whole or not at all, and never readable by others. */
export async function secret(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text, { mode: 0o600 });
  await rename(`${path}.new`, path);
}
