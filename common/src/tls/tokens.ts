/** Bearer tokens: Ed25519-signed JWTs, so that a server needs only the public half of the cell's token key. */

import { Role } from "@warren/proto/common";
import { exportPKCS8, exportSPKI, generateKeyPair, importPKCS8, importSPKI, jwtVerify, SignJWT } from "jose";
import { type Principal, roleName, roleOf } from "../rpc/roles.ts";

/** Of everything that the cell's token key signs. */
export const tokenAlgorithm = "EdDSA";

/** What tokens of that cell name as their issuer. */
export const issuerOf = (cell: string): string => `warren:${cell}`;

/** PEM texts of a key pair for tokens. */
export interface TokenKeys {
  readonly privateKey: string;
  readonly publicKey: string;
}

export async function createTokenKeys(): Promise<TokenKeys> {
  const pair = await generateKeyPair(tokenAlgorithm, { crv: "Ed25519", extractable: true });
  return { privateKey: await exportPKCS8(pair.privateKey), publicKey: await exportSPKI(pair.publicKey) };
}

/**
 * @param days validity; default 3650, since revoking is done by changing the cell's token key
 */
export async function issueToken(
  privateKey: string,
  who: { cell: string; role: Role; name: string },
  ttlMs = 3650 * 86_400_000,
): Promise<string> {
  return new SignJWT({ role: roleName(who.role) })
    .setProtectedHeader({ alg: tokenAlgorithm, typ: "JWT" })
    .setIssuer(issuerOf(who.cell))
    .setSubject(who.name)
    .setIssuedAt()
    .setExpirationTime(new Date(Date.now() + ttlMs))
    .sign(await importPKCS8(privateKey, tokenAlgorithm));
}

/** Answers who a token is for, or nothing for one that is not the cell's or has expired. */
export type TokenVerifier = (token: string) => Promise<Principal | undefined>;

/** Believed tokens are remembered (a verification costs ~0.1 ms), at most this many, and until they expire. */
const cacheSize = 1024;

export function tokenVerifier(publicKey: string | undefined): TokenVerifier {
  if (!publicKey) return async () => undefined;
  const key = importSPKI(publicKey, tokenAlgorithm);
  const believed = new Map<string, { principal: Principal; expires: number }>();
  return async (token) => {
    const known = believed.get(token);
    if (known && known.expires > Date.now()) return known.principal;
    believed.delete(token);
    try {
      const { payload } = await jwtVerify(token, await key, {
        algorithms: [tokenAlgorithm],
        typ: "JWT", // the same key signs join tokens, which must not open anything else
        requiredClaims: ["exp", "sub"],
      });
      const role = roleOf(String(payload.role));
      if (role === Role.UNSPECIFIED || !payload.sub || !payload.exp) return undefined;
      const principal = { role, name: payload.sub };
      if (believed.size >= cacheSize) believed.delete(believed.keys().next().value!);
      believed.set(token, { principal, expires: payload.exp * 1000 });
      return principal;
    } catch {
      return undefined; // forged, foreign, expired or no JWT at all: to the caller it is all the same
    }
  };
}
