/**
 * A cell's secrets on disk, as `warren up` makes them: the CA and the token key (which only issuing needs), and one
 * credentials directory per process. Everything is 0600 in directories of 0700.
 *
 *     <directory>/ca.crt ca.key tokens.key tokens.pub
 *     <directory>/<name>/ca.crt tls.crt tls.key token tokens.pub
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { type Credentials, credentialFiles, loadCredentials } from "../rpc/credentials.ts";
import { createCa, issueCertificate } from "./ca.ts";
import { createTokenKeys, issueToken } from "./tokens.ts";

/** Issues credentials for the processes of one cell. */
export interface CellSecrets {
  readonly cell: string;
  readonly directory: string;
  /** The directory of that name's credentials, made if it is not there yet. */
  credentialsFor(
    name: string,
    role: Role,
    hosts?: readonly string[],
  ): Promise<{ directory: string; credentials: Credentials }>;
}

/** Where every process on one machine can be reached. */
export const loopbackHosts = ["localhost", "127.0.0.1", "::1"] as const;

/** Opens the cell's secrets in `directory`, making them if there are none. */
export async function openCellSecrets(directory: string, cell: string): Promise<CellSecrets> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const at = (file: string) => join(directory, file);
  if (!existsSync(at("ca.key"))) {
    const [ca, tokens] = await Promise.all([createCa(cell), createTokenKeys()]);
    await secret(at("tokens.pub"), tokens.publicKey);
    await secret(at("tokens.key"), tokens.privateKey);
    await secret(at(credentialFiles.ca), ca.cert);
    await secret(at("ca.key"), ca.key); // last: with it, the cell counts as made
  }
  const read = (file: string) => readFile(at(file), "utf8");
  const [caCert, caKey, tokenKey, tokenPublic] = await Promise.all(
    [credentialFiles.ca, "ca.key", "tokens.key", "tokens.pub"].map(read),
  );
  return {
    cell,
    directory,
    async credentialsFor(name, role, hosts = loopbackHosts) {
      const own = at(name);
      if (!existsSync(join(own, credentialFiles.token))) {
        await mkdir(own, { recursive: true, mode: 0o700 });
        const pair = await issueCertificate({ cert: caCert!, key: caKey! }, { cell, role, name, hosts });
        await secret(join(own, credentialFiles.ca), caCert!);
        await secret(join(own, credentialFiles.tokenKey), tokenPublic!);
        // A control plane shows a token only: certificates are for the cell's own processes.
        if (role !== Role.CLIENT) {
          await secret(join(own, credentialFiles.cert), pair.cert);
          await secret(join(own, credentialFiles.key), pair.key);
        }
        await secret(join(own, credentialFiles.token), await issueToken(tokenKey!, { cell, role, name }));
      }
      return { directory: own, credentials: loadCredentials(own) };
    },
  };
}

/** Whole or not at all, and never readable by others. */
async function secret(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text, { mode: 0o600 });
  await rename(`${path}.new`, path);
}
