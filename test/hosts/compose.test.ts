/** The shipped compose file on real containers: three hosts, of which one dies. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { ComposedCell } from "../src/hosts/compose.ts";
import { processesOf } from "../src/hosts/remains.ts";
import { NoContainersError, openSite, type Site } from "../src/hosts/site.ts";

/** In CI a root that cannot run them is broken; elsewhere what is missing is named. */
const opened = await openSite().catch((error: Error) => {
  if (error instanceof NoContainersError && !(process.env.CI && process.getuid?.() === 0)) return error;
  throw error;
});
const why = opened instanceof Error ? ` (skipped: ${opened.message})` : "";

interface InstanceJson {
  readonly ref: { readonly tenant: string; readonly node: string };
  readonly state: string;
}
interface NodeJson {
  readonly name: string;
  readonly state: string;
  readonly isolation?: readonly string[];
}

const tenants = Array.from({ length: 5 }, (_, i) => `t${i + 1}`);
/** On every host, since no host may have two of it. */
const wide = "wide";
const wideSpec = { instances: { min: 3, max: 3, maxPerNode: 1 } };
const app = `Bun.serve({ port: process.env.PORT, hostname: process.env.HOST, fetch: () =>
  Response.json({ tenant: process.env.WARREN_TENANT, node: process.env.WARREN_NODE }) });`;

describe.skipIf(opened instanceof Error)(`a cell on three hosts${why}`, () => {
  const site = opened as Site;
  let cell: ComposedCell;
  let lost: string;

  const nodes = () => cell.warrenJson<NodeJson>("nodes");
  const nodeState = async (name: string) => (await nodes()).find((node) => node.name === name)?.state;
  const placed = async () =>
    (await cell.warrenJson<InstanceJson>("ps"))
      .filter(({ state }) => state === "INSTANCE_STATE_READY")
      .map(({ ref }) => ref);
  /** Where those tenants are that have one instance. */
  const nodesOf = async (those: readonly string[]) =>
    new Map(
      (await placed())
        .filter(({ tenant }) => those.includes(tenant))
        .map(({ tenant, node }) => [tenant, node]),
    );
  /** As `waitUntil`; when it is in vain, what the operator would look at is in the error. */
  const until = <T>(what: string, condition: () => Promise<T>) =>
    waitUntil(condition, { deadlineMs: 60_000, what }).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await cell.picture()}`);
    });
  const untilWideIsOn = (hosts: readonly string[]) =>
    until(`${wide} to be on ${hosts.join(", ")}`, async () => {
      const on = (await placed()).filter(({ tenant }) => tenant === wide).map(({ node }) => node);
      return on.sort().join() === hosts.join();
    });
  /** The node that answers. */
  const answer = async (tenant: string, deadlineMs = 20_000): Promise<string | undefined> => {
    const { status, body } = await cell.get(tenant, deadlineMs);
    if (status !== 200) return undefined;
    const said = JSON.parse(body) as { tenant: string; node: string };
    expect(said.tenant).toBe(tenant);
    return said.node;
  };

  beforeAll(async () => {
    cell = await ComposedCell.up(site);
  }, 180_000);
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
    expect(processesOf(site.directory)).toEqual([]);
    expect(existsSync(site.directory)).toBe(false);
  }, 120_000);

  test("comes up healthy, and its nodes are known", async () => {
    const up = await until("three nodes to be up", async () => {
      const found = await nodes();
      return found.filter(({ state }) => state === "NODE_STATE_UP").length === 3 ? found : undefined;
    });
    expect(up.map(({ name }) => name)).toEqual(["n1", "n2", "n3"]);
    for (const { isolation } of up) expect(isolation).toContain("ISOLATION_NAMESPACE");
  }, 60_000);

  test("tenants that are deployed are spread over all hosts, and answer through the gateway", async () => {
    const directory = join(site.directory, "app");
    const spec = join(site.directory, "wide.json");
    mkdirSync(directory);
    writeFileSync(join(directory, "index.ts"), app);
    writeFileSync(spec, JSON.stringify(wideSpec));
    await cell.warren("deploy", directory, "--name", wide, "--spec", spec);
    await Promise.all(tenants.map((tenant) => cell.warren("deploy", directory, "--name", tenant)));
    await cell.warren("ensure", tenants[0]!);
    for (const tenant of tenants) expect(await answer(tenant)).toBeDefined();
    await untilWideIsOn(["n1", "n2", "n3"]);
    const where = await nodesOf(tenants);
    expect([...where.keys()].sort()).toEqual(tenants);
    // Packed as tightly as the hosts let them, which is not on one.
    expect(new Set(where.values()).size).toBeGreaterThan(1);
    for (const tenant of tenants) expect(await answer(tenant)).toBe(where.get(tenant)!);
    expect(await answer(wide)).toBeDefined();
  }, 120_000);

  test("with one host gone, all tenants answer again from the others", async () => {
    const where = [...(await nodesOf(tenants)).values()];
    const count = (node: string) => where.filter((one) => one === node).length;
    lost = [...new Set(where)].sort((a, b) => count(b) - count(a))[0]!;
    await site.docker.kill((await cell.container(`agent${lost.slice(1)}`)).id);
    for (const tenant of [wide, ...tenants]) {
      const node = await until(`${tenant} to answer again`, async () => {
        const found = await answer(tenant);
        return found === lost ? undefined : found;
      });
      expect(node).not.toBe(lost);
    }
    expect(await nodeState(lost)).toBe("NODE_STATE_LOST");
  }, 120_000);

  test("the host returns, is known again, and takes tenants", async () => {
    await site.docker.start((await cell.container(`agent${lost.slice(1)}`)).id);
    await until(`${lost} to be up again`, async () => (await nodeState(lost)) === "NODE_STATE_UP");
    await untilWideIsOn(["n1", "n2", "n3"]);
    for (const tenant of [wide, ...tenants]) expect(await answer(tenant)).toBeDefined();
  }, 120_000);
});
