/** Rule 10: hosts that join by a token, as real processes; each credential of theirs comes from the scheduler. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { loadCredentials, Warren } from "@warren/client";
import { connectRpc } from "@warren/common/rpc/client";
import { Code, isRpcCode } from "@warren/common/rpc/errors";
import { waitUntil } from "@warren/common/time";
import { renew } from "@warren/common/tls/ca";
import { readCa } from "@warren/common/tls/cell";
import { NodeState } from "@warren/proto/common";
import { EnrolService } from "@warren/proto/scheduler";
import { writeApp } from "../src/apps.ts";
import { cli } from "../src/cli.ts";
import { FleetProcess } from "../src/fleet.ts";

let root: string;
let scheduler: FleetProcess;
let warren: Warren;
const running: FleetProcess[] = [];
const at = (...path: string[]) => join(root, ...path);

async function ca(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(["ca", ...args, "--dir", at("ca"), "--json"]);
  if (code !== 0) throw new Error(stderr);
  return (JSON.parse(stdout) as { directory: string }).directory;
}

async function token(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(["token", "create", "--dir", at("ca"), ...args]);
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}

const verb = (...args: string[]) =>
  cli(["token", ...args, "--scheduler", scheduler.url, "--credentials", at("ca", "client")]);

/** Flags of an agent; its credentials directory is its own. */
const agentArgs = (node: string, ...more: string[]) => [
  ...["agent", "--node", node, "--runtime", at("run", node), "--scheduler", scheduler.url],
  ...["--credentials", at("own", node), "--isolation", "none", ...more],
];

/** One that is to end by itself: it cannot join. */
const tryJoin = (node: string, directory: string, join: string, url = scheduler.url) =>
  cli([
    ...["agent", "--node", node, "--runtime", at("run", directory), "--scheduler", url],
    ...["--credentials", at("own", directory), "--isolation", "none", "--port", "0", "--join", join],
  ]);

async function start(name: string, args: readonly string[]): Promise<FleetProcess> {
  const process = new FleetProcess(name, root, args);
  running.push(process);
  await process.start();
  return process;
}

const schedulerArgs = (...more: string[]) => [
  ...["scheduler", "--state", at("state"), "--credentials", at("ca", "s1"), "--cell", "prod", ...more],
];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "warren-join-"));
  await ca("init", "--cell", "prod");
  await ca("issue", "s1", "--role", "scheduler", "--host", "s1.internal");
  const client = await ca("issue", "client", "--role", "client");
  scheduler = await start("s1", schedulerArgs("--ca", at("ca")));
  warren = new Warren({ url: scheduler.url, credentials: loadCredentials(client) });
}, 60_000);

afterAll(async () => {
  warren?.close();
  for (const process of running.reverse()) await process.stop();
  await rm(root, { recursive: true, force: true });
}, 60_000);

const nodesUp = (n: number) =>
  waitUntil(async () => (await warren.scheduler.getStats({})).nodesUp === n, {
    deadlineMs: 20_000,
    what: `${n} nodes to report`,
  });

test("rule 10: an agent and a gateway join by token, serve a tenant, and need the token never again", async () => {
  const join = await token("--node", "n1", "--host", "n1.internal");
  const agent = await start("n1", agentArgs("n1", "--on-stop", "keep", "--join", join));
  await writeFile(at("gateway.token"), `${await token("--node", "g1", "--role", "gateway")}\n`);
  const gateway = await start("g1", [
    ...["gateway", "--name", "g1", "--scheduler", scheduler.url, "--admin-port", "0"],
    ...["--credentials", at("own", "g1"), "--join", at("gateway.token")],
  ]);
  await nodesUp(1);

  // The key was made there, nobody else can read it, and there is no bearer token beside it.
  expect((await readdir(at("own", "n1"))).sort()).toEqual(["ca.crt", "tls.crt", "tls.key", "tokens.pub"]);
  expect(statSync(at("own", "n1", "tls.key")).mode & 0o777).toBe(0o600);
  expect(statSync(at("own", "n1")).mode & 0o777).toBe(0o700);
  const certificate = new X509Certificate(await readFile(at("own", "n1", "tls.crt")));
  expect(certificate.subject.split("\n").sort()).toEqual(["CN=n1", "O=prod", "OU=agent"]);
  expect([certificate.checkHost("n1.internal"), certificate.checkHost("s1")]).toEqual([
    "n1.internal",
    undefined,
  ]);
  expect(existsSync(at("ca", "n1"))).toBe(false);

  const app = await writeApp(root, "app", "hello");
  const release = await warren.upload("hello", app);
  await warren.apply({ key: "hello", source: { case: "release", value: release.digest } });
  const get = async () =>
    (await fetch(gateway.url, { headers: { host: "hello.localhost" }, signal: AbortSignal.timeout(20_000) }))
      .status;
  await waitUntil(async () => (await get()) === 200, { deadlineMs: 20_000, what: "hello to answer" });

  await agent.stop();
  running.splice(running.indexOf(agent), 1);
  await start("n1-again", agentArgs("n1", "--on-stop", "stop"));
  await nodesUp(1);
  await warren.scheduler.restart({ tenant: "hello" });
  expect(await get()).toBe(200);

  const used = await verb("list");
  expect(used.stdout).toContain("agent n1");
  expect(used.stdout).toContain("gateway g1");

  // It is used up: for another host of that name, for one on whose disk is nothing, and after the scheduler was killed.
  const again = await tryJoin("n1", "thief", join);
  expect([again.code, again.stderr]).toEqual([7, expect.stringContaining("was used already, for n1")]);
  await scheduler.kill();
  await scheduler.start();
  const later = await tryJoin("n1", "thief", join);
  expect([later.code, later.stderr]).toEqual([7, expect.stringContaining("was used already, for n1")]);
  expect(existsSync(at("own", "thief", "tls.crt"))).toBe(false);
}, 120_000);

test("of two that show a token at the same time one is let in", async () => {
  const join = await token("--node", "n7");
  const tries = [1, 2, 3, 4].map((i) =>
    start(`n7-${i}`, [
      ...["agent", "--node", "n7", "--runtime", at("run", `n7-${i}`), "--scheduler", scheduler.url],
      ...["--credentials", at("own", `n7-${i}`), "--isolation", "none", "--join", join],
    ]).then(
      () => "in",
      (error: Error) => error.message,
    ),
  );
  const outcomes = await Promise.all(tries);
  expect(outcomes.filter((outcome) => outcome === "in")).toHaveLength(1);
  for (const outcome of outcomes) expect(outcome).toMatch(/^in$|was used already, for n7/);
}, 60_000);

test("a name that is live, a revoked token, one for another name, another cell's: each is refused with its reason", async () => {
  await start("n2", agentArgs("n2", "--on-stop", "stop", "--join", await token("--node", "n2")));
  const live = await tryJoin("n2", "second", await token("--node", "n2"));
  expect([live.code, live.stderr]).toEqual([
    4,
    expect.stringContaining("there is a node n2 already, and it is live"),
  ]);
  const open = await tryJoin("n2", "third", await token("--node", "n*", "--uses", "5"));
  expect([open.code, open.stderr]).toEqual([4, expect.stringContaining("there is a node n2 already")]);

  const posing = await tryJoin("s1", "s1", await token("--node", "s*", "--host", "{node}.internal"));
  expect([posing.code, posing.stderr]).toEqual([7, expect.stringContaining("which is this scheduler")]);

  const revoked = await token("--node", "n3");
  expect((await verb("revoke", revoked)).code).toBe(0);
  const denied = await tryJoin("n3", "n3", revoked);
  expect([denied.code, denied.stderr]).toEqual([7, expect.stringContaining("was revoked")]);

  const wrong = await tryJoin("n4", "n4", await token("--node", "n5"));
  expect(wrong.stderr).toContain("the join token is for n5, not for n4");
  const none = await tryJoin("n4", "n4", "warren-join.x.y.z");
  expect(none.stderr).toContain("that is no join token");

  await cli(["ca", "init", "--cell", "prod", "--dir", at("other")]);
  const { stdout } = await cli(["token", "create", "--node", "n4", "--dir", at("other")]);
  const foreign = await tryJoin("n4", "n4", stdout.trim());
  expect(foreign.stderr).toContain("does not belong to the cell of this join token");
}, 120_000);

test("a scheduler without the CA says what to do; a CA that is not its cell's is refused", async () => {
  const without = await start("s2", [
    ...["scheduler", "--state", at("state2"), "--credentials", at("ca", "s1"), "--cell", "prod"],
  ]);
  const { code, stderr } = await tryJoin("n6", "n6", await token("--node", "n6"), without.url);
  expect([code, stderr]).toEqual([4, expect.stringContaining("start it with '--ca DIR'")]);

  await cli(["ca", "init", "--cell", "prod", "--dir", at("another")]);
  const wrong = await cli(schedulerArgs("--port", "0", "--ca", at("another")));
  expect([wrong.code, wrong.stderr]).toEqual([
    1,
    expect.stringContaining("is not that of its own credentials"),
  ]);
}, 60_000);

test("a certificate that is about to expire is renewed while its agent runs, for the same key and hosts", async () => {
  await ca("issue", "n8", "--role", "agent", "--host", "n8.internal", "--host", "10.0.0.8");
  const own = at("ca", "n8");
  const authority = await readCa(at("ca"));
  const file = join(own, "tls.crt");
  const before = new X509Certificate(await readFile(file));
  // As it was issued, but that it ends in six hours: less than a third of its life is left.
  const dying = await renew(authority, before.raw, 0.25);
  await writeFile(file, dying);
  const agent = await start("n8", [
    ...["agent", "--node", "n8", "--runtime", at("run", "n8"), "--scheduler", scheduler.url],
    ...["--credentials", own, "--isolation", "none", "--on-stop", "stop"],
  ]);
  const stored = await waitUntil(
    async () => {
      const now = new X509Certificate(await readFile(file));
      return now.serialNumber === new X509Certificate(dying).serialNumber ? undefined : now;
    },
    { deadlineMs: 20_000, what: "another certificate" },
  );
  expect(Date.parse(stored.validTo)).toBeGreaterThan(Date.now() + 800 * 86_400_000);
  expect(stored.publicKey.equals(before.publicKey)).toBe(true);
  expect([stored.subject, stored.subjectAltName]).toEqual([before.subject, before.subjectAltName]);
  expect(stored.checkIP("10.0.0.8")).toBe("10.0.0.8");
  // Its server shows it, without a restart.
  expect(await shownBy(agent.url)).toBe(stored.fingerprint256);
  await waitUntil(
    async () =>
      (await warren.scheduler.listNodes({})).nodes.some(
        ({ name, state }) => name === "n8" && state === NodeState.UP,
      ),
    {
      deadlineMs: 20_000,
      what: "n8 to report",
    },
  );

  const bearer = loadCredentials(own);
  const connection = connectRpc({ url: scheduler.url, credentials: { ca: bearer.ca, token: bearer.token } });
  const why = await connection
    .client(EnrolService)
    .renew({})
    .catch((error: unknown) => error);
  connection.close();
  expect(isRpcCode(why, Code.Unauthenticated)).toBe(true);
}, 60_000);

/** Fingerprint of the certificate that a server shows. */
function shownBy(url: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port), rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.on("error", reject);
  });
}
