import { describe, expect, test } from "bun:test";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import type { Listing } from "../src/pack.ts";
import { directory, entriesOf, failure, namesOf, write } from "./packed.ts";

describe("links of an app", () => {
  test("the directory itself may be a link, as current -> releases/7 is", async () => {
    await using at = await directory();
    await write(at.path, { "releases/7/index.ts": "x" });
    await symlink(join(at.path, "releases", "7"), join(at.path, "current"));
    expect(await namesOf(join(at.path, "current"))).toEqual(["index.ts"]);
  });

  test("a link inside is kept as it is written, an absolute one or one by way of outside leads to the same place", async () => {
    await using at = await directory();
    const app = join(at.path, "app");
    await write(app, { "data.7/text": "x", "a/b/c.ts": "x" });
    await symlink(join(app, "data.7"), join(app, "data"));
    await symlink("../../data.7/text", join(app, "a", "b", "text"));
    await symlink("../../../app/data.7", join(app, "a", "b", "round"));
    await symlink("data/text", join(app, "through"));
    await symlink("missing", join(app, "dangling"));
    await symlink(".", join(app, "self"));
    await symlink(app, join(app, "a", "top"));
    const links = (await entriesOf(app)).filter(({ type }) => type === "symlink");
    expect(Object.fromEntries(links.map(({ name, target }) => [name, target]))).toEqual({
      data: "data.7",
      "a/b/text": "../../data.7/text",
      "a/b/round": "../../data.7",
      through: "data/text",
      dangling: "missing",
      self: ".",
      "a/top": "..",
    });
  });

  test("packages of a workspace are taken along, once each, and links between them lead to where they stand", async () => {
    await using at = await directory();
    const app = join(at.path, "apps", "web");
    await write(at.path, {
      "apps/web/index.ts": "x",
      "packages/lib/package.json": "{}",
      "packages/lib/cli.js": "cli",
      "packages/lib/.env": "SECRET=1",
      "packages/other/package.json": "{}",
    });
    await mkdir(join(app, "node_modules", ".bin"), { recursive: true });
    await mkdir(join(app, "node_modules", "@mono"));
    await symlink("../../../../packages/lib", join(app, "node_modules", "@mono", "lib"));
    await symlink("../@mono/lib/cli.js", join(app, "node_modules", ".bin", "lib"));
    await mkdir(join(at.path, "packages", "lib", "node_modules"));
    await mkdir(join(at.path, "packages", "other", "node_modules"));
    await symlink("../../other", join(at.path, "packages", "lib", "node_modules", "other"));
    await symlink("../../lib", join(at.path, "packages", "other", "node_modules", "lib")); // a circle
    let listing: Listing | undefined;
    const found = await entriesOf(app, { onListed: (one) => (listing = one) });
    expect(found.map(({ name, target }) => (target ? `${name} -> ${target}` : name))).toEqual([
      "index.ts",
      "node_modules/",
      "node_modules/.bin/",
      "node_modules/.bin/lib -> ../@mono/lib/cli.js",
      "node_modules/@mono/",
      "node_modules/@mono/lib/",
      "node_modules/@mono/lib/cli.js",
      "node_modules/@mono/lib/node_modules/",
      "node_modules/@mono/lib/node_modules/other/",
      "node_modules/@mono/lib/node_modules/other/node_modules/",
      "node_modules/@mono/lib/node_modules/other/node_modules/lib -> ../../..",
      "node_modules/@mono/lib/node_modules/other/package.json",
      "node_modules/@mono/lib/package.json",
    ]);
    expect(listing?.followed.map(({ name }) => name)).toEqual([
      "node_modules/@mono/lib",
      "node_modules/@mono/lib/node_modules/other",
    ]);
    expect(listing?.dotenv).toEqual(["node_modules/@mono/lib/.env"]);
  });

  test("a link into a workspace's store is refused, with the command that deploys the workspace", async () => {
    await using at = await directory();
    const app = join(at.path, "apps", "web");
    await write(at.path, {
      "apps/web/index.ts": "x",
      "node_modules/.bun/hono@4/node_modules/hono/package.json": "{}",
    });
    await mkdir(join(app, "node_modules"));
    await symlink("../../../node_modules/.bun/hono@4/node_modules/hono", join(app, "node_modules", "hono"));
    const message = await failure(app);
    expect(message).toContain("node_modules/hono is a link to ../../../node_modules/.bun");
    expect(message).toMatch(/warren deploy \S+ --name NAME -- bun apps\/web\/ENTRY/);
  });

  test.each([
    ["a directory outside", "../secret", "copy what it leads to"],
    ["a file outside", "../secret/key", "copy what it leads to"],
    ["a directory outside by an absolute path", "/etc", "copy what it leads to"],
    ["nothing outside", "../../no-such-place", "there is nothing"],
  ])("%s is refused, naming the link and its target", async (_, target, why) => {
    await using at = await directory();
    await write(at.path, { "app/index.ts": "x", "secret/key": "x" });
    await symlink(target, join(at.path, "app", "out"));
    const message = await failure(join(at.path, "app"));
    expect(message).toContain(`out is a link to ${target}, which is outside of ${join(at.path, "app")}`);
    expect(message).toContain(why);
  });
});
