/**
 * Join tokens: what lets a host without credentials into a cell, once. A JWT that the cell's token key signs, so that it
 * is made where that key is, and nothing has to be kept until it is used. It pins the cell's CA, and binds name, role
 * and hosts: whoever holds it cannot become the scheduler. Its type keeps it from being believed as a bearer token.
 */
import { Role } from "@warren/proto/common";
import { decodeJwt, errors, importPKCS8, importSPKI, jwtVerify, SignJWT } from "jose";
import { z } from "zod";
import { isKey, keyRule, ulid } from "../ids.ts";
import { roleName, roleOf } from "../rpc/roles.ts";
import { cellOf, fingerprintOf } from "./ca.ts";
import { issuerOf, tokenAlgorithm } from "./tokens.ts";

/** A join token is none, is not good here, or cannot be made so; the message says why and what to do. */
export class JoinTokenError extends Error {
  override readonly name = "JoinTokenError";
}

export interface JoinGrant {
  /** The node's or gateway's name, or the beginning of names with a `*` behind it. */
  readonly names: string;
  /** AGENT or GATEWAY. */
  readonly role: Role;
  /** What its server may be reached by besides localhost; `{node}` stands for the name. */
  readonly hosts: readonly string[];
  /** How many may be enrolled with it. */
  readonly uses: number;
}

export interface JoinToken extends JoinGrant {
  /** A ULID. */
  readonly id: string;
  readonly cell: string;
  /** sha256 of the CA's certificate, hex. */
  readonly ca: string;
  /** ms since 1970 */
  readonly expiresAt: number;
}

/** So that a person, and a scanner for secrets, knows what it is. */
export const joinTokenPrefix = "warren-join.";
/** Longest validity: for so long its use must be remembered. */
export const mostTtlMs = 7 * 86_400_000;
/** Most that may be enrolled with one. */
export const mostUses = 100;
const mostHosts = 16;

const type = "warren-join+jwt";
const namesPattern = /^[a-z0-9][a-z0-9-]{0,61}\*$/;
/** A name or address; `{node}` may stand once in a name. */
const hostPattern = /^[A-Za-z0-9.:_-]{0,200}(\{node\}[A-Za-z0-9._-]{0,100})?$/;

const claimsSchema = z.object({
  iss: z.string().regex(/^warren:/),
  sub: z.string().refine((text) => isKey(text) || namesPattern.test(text)),
  jti: z.string().regex(/^[0-9A-HJKMNP-TV-Z]{26}$/),
  iat: z.number().int(),
  exp: z.number().int(),
  ca: z.string().regex(/^[0-9a-f]{64}$/),
  join: z.enum([roleName(Role.AGENT), roleName(Role.GATEWAY)]),
  hosts: z.array(z.string().min(1).regex(hostPattern)).max(mostHosts),
  uses: z.number().int().min(1).max(mostUses),
});

/**
 * @param ttlMs validity
 * @throws JoinTokenError naming what may not be in one
 */
export async function createJoinToken(
  cell: { readonly caCert: string; readonly tokenKey: string },
  grant: JoinGrant,
  ttlMs: number,
): Promise<{ token: string; id: string; expiresAt: number }> {
  if (!(ttlMs >= 1_000 && ttlMs <= mostTtlMs))
    throw new JoinTokenError("a join token is valid for 1s to 7d, so that its use can be remembered");
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: issuerOf(cellOf(cell.caCert)),
    sub: grant.names,
    jti: ulid(),
    iat: now,
    exp: now + Math.ceil(ttlMs / 1000),
    ca: fingerprintOf(cell.caCert),
    join: roleName(grant.role),
    hosts: [...grant.hosts],
    uses: grant.uses,
  };
  const wrong = claimsSchema.safeParse(claims).error?.issues[0]?.path[0];
  if (wrong !== undefined) throw new JoinTokenError(rules[wrong] ?? `${String(wrong)} is none`);
  const jwt = await new SignJWT(claims)
    .setProtectedHeader({ alg: tokenAlgorithm, typ: type })
    .sign(await importPKCS8(cell.tokenKey, tokenAlgorithm));
  return { token: `${joinTokenPrefix}${jwt}`, id: claims.jti, expiresAt: claims.exp * 1000 };
}

const rules: Readonly<Record<PropertyKey, string>> = {
  sub: `the name ${keyRule}; or the beginning of one with a * behind it`,
  join: "a join token is for an agent or a gateway; other credentials are carried ('warren ca issue')",
  hosts: `hosts are at most ${mostHosts} names or addresses, in which {node} stands for the name`,
  uses: `a join token is good for 1 to ${mostUses}`,
};

/**
 * What a token says of itself. Nothing of it is verified: for whoever was given it by somebody they trust.
 * @throws JoinTokenError
 */
export function readJoinToken(text: string): JoinToken {
  const jwt = jwtOf(text);
  try {
    return tokenOf(decodeJwt(jwt));
  } catch {
    throw damaged();
  }
}

/** @throws JoinTokenError saying whether it is none, another cell's, or has expired */
export type JoinTokenVerifier = (text: string) => Promise<JoinToken>;

/**
 * Of tokens of the cell with that CA, which that key has signed.
 * @param publicKey SPKI PEM; without it none is believed
 * @param now ms since 1970
 */
export function joinTokenVerifier(
  publicKey: string | undefined,
  caCert: string,
  now: () => number = Date.now,
): JoinTokenVerifier {
  const key = publicKey && importSPKI(publicKey, tokenAlgorithm);
  const ca = fingerprintOf(caCert);
  const cell = cellOf(caCert);
  return async (text) => {
    let token: JoinToken;
    try {
      if (!key) throw damaged();
      const { payload } = await jwtVerify(jwtOf(text), await key, {
        algorithms: [tokenAlgorithm],
        typ: type,
        currentDate: new Date(now()),
        issuer: issuerOf(cell),
      });
      token = tokenOf(payload);
    } catch (error) {
      if (error instanceof errors.JWTExpired)
        throw new JoinTokenError("the join token has expired: make a new one ('warren token create')");
      throw new JoinTokenError("that is no join token of this cell: make one with 'warren token create'");
    }
    if (token.ca !== ca)
      throw new JoinTokenError("the join token is for another CA than this cell has: make a new one");
    return token;
  };
}

/** Whether a token for those names is good for that one. */
export function grantsName({ names }: Pick<JoinGrant, "names">, name: string): boolean {
  return isOpen({ names }) ? name.startsWith(names.slice(0, -1)) && isKey(name) : name === names;
}

/** Whether it is for any new name that begins so. */
export function isOpen({ names }: Pick<JoinGrant, "names">): boolean {
  return names.endsWith("*");
}

/** What the certificate of that name may be reached by, besides localhost. */
export function hostsFor({ hosts }: Pick<JoinGrant, "hosts">, name: string): string[] {
  return hosts.map((host) => host.replace("{node}", name));
}

function jwtOf(text: string): string {
  if (!text.startsWith(joinTokenPrefix)) throw damaged();
  return text.slice(joinTokenPrefix.length);
}

function damaged(): JoinTokenError {
  return new JoinTokenError(
    `that is no join token: it is one line that begins with ${joinTokenPrefix}, as 'warren token create' prints it`,
  );
}

/** @throws ZodError for claims that no token of ours has, whoever signed it */
function tokenOf(payload: unknown): JoinToken {
  const claims = claimsSchema.parse(payload);
  if ((claims.exp - claims.iat) * 1000 > mostTtlMs) throw damaged();
  return {
    id: claims.jti,
    cell: claims.iss.slice(issuerOf("").length),
    ca: claims.ca,
    names: claims.sub,
    role: roleOf(claims.join),
    hosts: claims.hosts,
    uses: claims.uses,
    expiresAt: claims.exp * 1000,
  };
}
