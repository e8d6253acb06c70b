/** Join tokens: what is believed, by whom, and that nothing else is. */
import { beforeAll, describe, expect, test } from "bun:test";
import { Role } from "@warren/proto/common";
import { importPKCS8, SignJWT } from "jose";
import { type CertificateAuthority, createCa, fingerprintOf } from "../src/tls/ca.ts";
import {
  createJoinToken,
  grantsName,
  hostsFor,
  type JoinGrant,
  JoinTokenError,
  joinTokenPrefix,
  joinTokenVerifier,
  readJoinToken,
} from "../src/tls/join-token.ts";
import { createTokenKeys, issueToken, type TokenKeys, tokenVerifier } from "../src/tls/tokens.ts";

const grant: JoinGrant = { names: "n1", role: Role.AGENT, hosts: ["n1.internal", "10.0.0.11"], uses: 1 };
const hour = 3_600_000;
let ca: CertificateAuthority;
let keys: TokenKeys;
let token: string;

const make = (of: Partial<JoinGrant> = {}, ttlMs = hour) =>
  createJoinToken({ caCert: ca.cert, tokenKey: keys.privateKey }, { ...grant, ...of }, ttlMs);
const verifier = (now?: () => number) => joinTokenVerifier(keys.publicKey, ca.cert, now);

beforeAll(async () => {
  [ca, keys] = await Promise.all([createCa("prod"), createTokenKeys()]);
  ({ token } = await make());
});

test("it names cell, CA, name, role, hosts and uses, on one line", async () => {
  const said = { cell: "prod", ca: fingerprintOf(ca.cert), ...grant };
  expect(readJoinToken(token)).toMatchObject(said);
  expect(await verifier()(token)).toMatchObject(said);
  expect(token).toMatch(/^warren-join\.[\w.-]{100,1000}$/);
});

describe("is refused", () => {
  const refusal = async (text: string, verify = verifier()) => {
    const error = await verify(text).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(JoinTokenError);
    return (error as Error).message;
  };

  test("when it has expired, and a moment before it is not", async () => {
    const { expiresAt } = readJoinToken(token);
    expect(
      await refusal(
        token,
        verifier(() => expiresAt + 1_000),
      ),
    ).toContain("has expired");
    expect(await verifier(() => expiresAt - 1_000)(token)).toMatchObject({ names: "n1" });
  });

  test("of another cell's key, and of another cell or CA with the same key", async () => {
    const others = await createTokenKeys();
    expect(await refusal(token, joinTokenVerifier(others.publicKey, ca.cert))).toContain("no join token of");
    const [namesake, other] = await Promise.all([createCa("prod"), createCa("other")]);
    expect(await refusal(token, joinTokenVerifier(keys.publicKey, namesake.cert))).toContain("another CA");
    expect(await refusal(token, joinTokenVerifier(keys.publicKey, other.cert))).toContain("no join token of");
    expect(await refusal(token, joinTokenVerifier(undefined, ca.cert))).toContain("no join token of");
  });

  test("a bearer token of the cell; nor does a join token open what those open", async () => {
    const bearer = await issueToken(keys.privateKey, { cell: "prod", role: Role.AGENT, name: "n1" });
    expect(await refusal(`${joinTokenPrefix}${bearer}`)).toContain("no join token of");
    expect(await refusal(bearer)).toContain("no join token of");
    expect(await tokenVerifier(keys.publicKey)(token.slice(joinTokenPrefix.length))).toBeUndefined();
    expect(await tokenVerifier(keys.publicKey)(bearer)).toMatchObject({ name: "n1" });
  });

  test("with claims that no token of ours has, even when the cell's key has signed them", async () => {
    const { id, ca: pin, expiresAt } = readJoinToken(token);
    const claims = { iss: "warren:prod", sub: "n1", jti: id, iat: 1, exp: expiresAt / 1000, ca: pin };
    const sign = async (of: object) =>
      `${joinTokenPrefix}${await new SignJWT({
        ...claims,
        iat: claims.exp - 60,
        join: "agent",
        hosts: [],
        uses: 1,
        ...of,
      })
        .setProtectedHeader({ alg: "EdDSA", typ: "warren-join+jwt" })
        .sign(await importPKCS8(keys.privateKey, "EdDSA"))}`;
    expect(await verifier()(await sign({}))).toMatchObject({ names: "n1" });
    for (const wrong of [
      { join: "scheduler" },
      { join: "client" },
      { uses: 0 },
      { uses: 1e9 },
      { sub: "../n1" },
      { sub: "*" },
      { jti: "x" },
      { hosts: ["a b"] },
      { hosts: ["*.internal"] },
      { hosts: Array(17).fill("a") },
      { ca: "" },
      { iat: 1 }, // valid for longer than its use is remembered
      { exp: undefined },
    ]) {
      expect(await refusal(await sign(wrong))).toContain("no join token of");
    }
  });

  test("garbage, and every token with something changed", async () => {
    let state = 20_261_121;
    const random = (n: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % n;
    };
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    const letters = (n: number) =>
      Array.from({ length: n }, () => alphabet[random(alphabet.length)]).join("");
    const verify = verifier();
    for (let i = 0; i < 300; i++) {
      const at = random(token.length);
      const changed = `${token.slice(0, at)}${letters(1)}${token.slice(at + 1)}`;
      const cases = [
        letters(random(200)),
        `${joinTokenPrefix}${letters(random(400))}`,
        token.slice(0, at),
        token + letters(1 + random(4)),
        ...(isSame(changed, token) ? [] : [changed]),
      ];
      for (const text of cases) await refusal(text, verify);
    }
  });
});

/** The last letter of a signature carries bits that mean nothing. */
function isSame(a: string, b: string): boolean {
  const parts = (text: string) =>
    text.split(".").map((part) => Buffer.from(part, "base64url").toString("hex"));
  return parts(a).join() === parts(b).join();
}

test("what may not be in one is said when it is made", async () => {
  const why = (of: Partial<JoinGrant>, ttl?: number) => make(of, ttl).catch((error: Error) => error.message);
  expect(await why({ names: "N1" })).toContain("must be a DNS label");
  expect(await why({ names: "*" })).toContain("must be a DNS label");
  expect(await why({ role: Role.SCHEDULER })).toContain("for an agent or a gateway");
  expect(await why({ uses: 101 })).toContain("1 to 100");
  expect(await why({ hosts: ["a/b"] })).toContain("names or addresses");
  expect(await why({}, 8 * 24 * hour)).toContain("1s to 7d");
});

test("names and hosts: one name, or any that begins so", () => {
  expect(["n1", "n2", "n11", ""].map((name) => grantsName({ names: "n1" }, name))).toEqual([
    true,
    false,
    false,
    false,
  ]);
  const open = { names: "web-*" };
  expect(["web-1", "web-", "web", "web-A", "x-web-1"].map((name) => grantsName(open, name))).toEqual([
    true,
    false,
    false,
    false,
    false,
  ]);
  expect(hostsFor({ hosts: ["{node}.internal", "10.0.0.1"] }, "web-1")).toEqual([
    "web-1.internal",
    "10.0.0.1",
  ]);
});
