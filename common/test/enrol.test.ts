/** A host without credentials and whom it trusts: real servers, of which one is in the middle. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Role } from "@warren/proto/common";
import { EnrolService } from "@warren/proto/scheduler";
import { createLogger } from "../src/log.ts";
import { connectRpc } from "../src/rpc/client.ts";
import { Code, isRpcCode, rpcError } from "../src/rpc/errors.ts";
import { type RpcServer, serveRpc } from "../src/rpc/server.ts";
import { createCa, createKey, issueCertificate, readSigningRequest, signingRequest } from "../src/tls/ca.ts";
import { type CellSecrets, loopbackHosts, openCellSecrets } from "../src/tls/cell.ts";
import { enrol, hasCredentials } from "../src/tls/enrol.ts";
import { createJoinToken } from "../src/tls/join-token.ts";
import { PinError } from "../src/tls/pinned.ts";

let root: string;
let cell: CellSecrets;
let token: string;
const undo: (() => unknown)[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "warren-enrol-"));
  cell = await openCellSecrets(join(root, "cell"), "prod");
  const grant = { names: "n1", role: Role.AGENT, hosts: [], uses: 1 };
  ({ token } = await createJoinToken({ caCert: cell.ca.cert, tokenKey: cell.tokenKey }, grant, 60_000));
});

afterEach(async () => {
  for (const run of undo.splice(0).reverse()) await run();
  await rm(root, { recursive: true, force: true });
});

/** A scheduler, as far as enrolling goes, that notes what it is sent. */
async function serve(secrets: CellSecrets, seen: string[], fail?: Error): Promise<RpcServer> {
  const server = await serveRpc({
    name: "test",
    port: 0,
    credentials: (await secrets.credentialsFor("s1", Role.SCHEDULER)).credentials,
    log: createLogger({ process: "test" }),
    routes: (router) =>
      router.service(EnrolService, {
        enrol(request) {
          seen.push(request.token);
          throw fail ?? rpcError(Code.PermissionDenied, "seen");
        },
      }),
  });
  undo.push(() => server.stop(0));
  return server;
}

const ask = (url: string, patienceMs = 0) =>
  enrol({
    directory: join(root, "own"),
    token,
    name: "n1",
    role: Role.AGENT,
    urls: [url],
    patienceMs,
  }).then(
    () => undefined,
    (error: unknown) => error,
  );

test("the cell's own server is shown the token, and no other RPC is open without a credential", async () => {
  const seen: string[] = [];
  const { url } = await serve(cell, seen);
  expect(isRpcCode(await ask(url), Code.PermissionDenied)).toBe(true);
  expect(seen).toEqual([token]);
  expect(hasCredentials(join(root, "own"))).toBe(false);

  const stranger = connectRpc({ url, credentials: { ca: cell.ca.cert } });
  undo.push(() => stranger.close());
  const why = await stranger
    .client(EnrolService)
    .listJoinTokens({})
    .catch((error: unknown) => error);
  expect(isRpcCode(why, Code.Unauthenticated)).toBe(true);
});

test("rule 10: a server of another CA is sent nothing, though it calls itself the same", async () => {
  const seen: string[] = [];
  const other = await openCellSecrets(join(root, "other"), "prod");
  const { url } = await serve(other, seen);
  expect(await ask(url, 10_000)).toBeInstanceOf(PinError);
  expect(seen).toEqual([]);
});

test("rule 10: one in the middle that shows the cell's CA, but a certificate of another, is sent nothing", async () => {
  const other = await createCa("prod");
  const own = await issueCertificate(other, {
    cell: "prod",
    role: Role.SCHEDULER,
    name: "s1",
    hosts: loopbackHosts,
  });
  // Each certificate of the chain names the next one as its issuer, by name; only the signature is not there.
  const server = createSecureServer({ cert: `${own.cert}\n${cell.ca.cert}`, key: own.key });
  let requests = 0;
  let connections = 0;
  server.on("connection", () => connections++);
  server.on("stream", () => requests++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  undo.push(() => server.close());
  const error = await ask(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  expect(`${error}`).toContain("did not sign");
  expect(connections).toBeGreaterThan(1);
  expect(requests).toBe(0);
});

test("while nobody is there it asks again, within its patience; the key is made once", async () => {
  const seen: string[] = [];
  const { url } = await serve(cell, seen, rpcError(Code.Unavailable, "nobody leads"));
  expect(isRpcCode(await ask(url, 1_500), Code.Unavailable)).toBe(true);
  expect(seen.length).toBeGreaterThan(1);
  expect(await readdir(join(root, "own"))).toEqual(["tls.key"]);
});

test("a token for another name, role or host is not shown at all", async () => {
  const options = { directory: join(root, "own"), token, urls: ["https://127.0.0.1:1"], patienceMs: 0 };
  const why = (of: { name?: string; role?: Role; host?: string }) =>
    enrol({ ...options, name: "n1", role: Role.AGENT, ...of }).catch((error: Error) => error.message);
  expect(await why({ name: "n2" })).toContain("is for n1, not for n2");
  expect(await why({ role: Role.GATEWAY })).toContain("not for gateway");
  expect(await why({ host: "n1.internal" })).toContain("'--host n1.internal'");
});

test("a signing request proves its key; what is none is none", async () => {
  const key = await createKey();
  const request = await signingRequest(key);
  expect((await readSigningRequest(request))?.keyHash).toMatch(/^[0-9a-f]{64}$/);
  expect((await readSigningRequest(await signingRequest(key)))?.keyHash).toBe(
    (await readSigningRequest(request))!.keyHash,
  );
  const der = Buffer.from(request.split("\n").slice(1, -1).join(""), "base64");
  for (const at of [der.length - 3, Math.floor(der.length / 2)]) {
    const bad = Buffer.from(der);
    bad[at] = bad[at]! ^ 1;
    const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${bad.toString("base64")}\n-----END CERTIFICATE REQUEST-----`;
    expect(await readSigningRequest(pem)).toBeUndefined();
  }
  for (const text of ["", "x", cell.ca.cert, "-----BEGIN CERTIFICATE REQUEST-----"])
    expect(await readSigningRequest(text)).toBeUndefined();
});
