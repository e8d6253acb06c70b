import { afterAll, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadCredentials } from "@warren/common/rpc/credentials";
import { isQuick } from "@warren/common/testing/quick";

const root = mkdtempSync(join(tmpdir(), "warren-ca-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const bin = join(import.meta.dir, "..", "bin", "warren");

function ca(...args: string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([bin, "ca", ...args, "--dir", join(root, "cell")]);
  return { exitCode, said: `${stdout}${stderr}`, json: () => JSON.parse(`${stdout}`) as { isNew: boolean } };
}

test.skipIf(isQuick)(
  "a CA is made once; what it issues names role, node, cell and hosts, and is closed to others",
  () => {
    const without = ca("issue", "n1", "--role", "agent");
    expect([without.exitCode, without.said]).toEqual([1, expect.stringContaining("'warren ca init'")]);

    expect(ca("init", "--cell", "prod", "--json").json()).toMatchObject({ cell: "prod", isNew: true });
    expect(ca("init", "--cell", "other", "--json").json()).toMatchObject({ cell: "prod", isNew: false });

    const issue = ["issue", "n1", "--role", "agent", "--host", "h1", "--host", "10.0.0.1", "--json"];
    expect(ca(...issue).json()).toMatchObject({ isNew: true });
    const directory = join(root, "cell", "n1");
    const { ca: issuer, cert } = loadCredentials(directory);
    const first = new X509Certificate(cert!);
    expect(first.checkIssued(new X509Certificate(issuer))).toBe(true);
    expect(first.subject.split("\n").sort()).toEqual(["CN=n1", "O=prod", "OU=agent"]);
    for (const host of ["localhost", "h1"]) expect(first.checkHost(host)).toBeDefined();
    expect(first.checkIP("10.0.0.1")).toBeDefined();
    expect(first.checkHost("h2")).toBeUndefined();
    expect([statSync(directory).mode & 0o777, statSync(join(directory, "tls.key")).mode & 0o777]).toEqual([
      0o700, 0o600,
    ]);

    expect(ca(...issue).json()).toMatchObject({ isNew: false });
    expect(ca(...issue, "--renew").json()).toMatchObject({ isNew: true });
    expect(new X509Certificate(loadCredentials(directory).cert!).serialNumber).not.toBe(first.serialNumber);

    expect(ca("issue", "billing", "--role", "client", "--json").json()).toMatchObject({ isNew: true });
    expect(existsSync(join(root, "cell", "billing", "token"))).toBe(true);
    expect(existsSync(join(root, "cell", "billing", "tls.key"))).toBe(false);

    const named = ca("issue", "n1", "--role", "agent", "--host", "h2");
    expect([named.exitCode, named.said]).toEqual([
      0,
      expect.stringContaining("does not name h2: issue it anew with --renew"),
    ]);

    expect(ca("issue", "prom", "--role", "metrics", "--ttl", "90d", "--json").json()).toMatchObject({
      isNew: true,
    });
    const token = claimsOf(readFileSync(join(root, "cell", "prom", "token"), "utf8"));
    expect(token.role).toBe("metrics");
    expect(token.exp - token.iat).toBe(90 * 86_400);
    expect(existsSync(join(root, "cell", "prom", "tls.key"))).toBe(false);
    expect(ca("issue", "n2", "--role", "agent", "--ttl", "90d").exitCode).toBe(2);

    expect(ca("issue", "N1", "--role", "agent").exitCode).toBe(2);
    expect(ca("issue", "n2", "--role", "root").exitCode).toBe(2);
  },
  60_000,
);

function claimsOf(token: string): { role: string; iat: number; exp: number } {
  return JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
}
