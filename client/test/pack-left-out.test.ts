import { describe, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDotenv } from "../src/pack/left-out.ts";
import type { Listing } from "../src/pack.ts";
import { directory, failure, namesOf, write } from "./packed.ts";

async function listed(root: string): Promise<{ names: string[]; listing: Listing }> {
  let listing: Listing | undefined;
  const names = await namesOf(root, { onListed: (one) => (listing = one) });
  return { names, listing: listing! };
}

describe("what stays here", () => {
  test("dotenv files at any depth are left out and named; their templates are not", async () => {
    await using at = await directory();
    await write(at.path, {
      ".env": "",
      ".env.production.local": "",
      "config/.env": "",
      ".env.example": "",
      ".env.local.sample": "",
      "config/.env.template": "",
      ".envrc": "",
      ".well-known/security.txt": "",
      "node_modules/dotenv-tests/.env": "",
    });
    const { names, listing } = await listed(at.path);
    expect(names.filter((name) => !name.endsWith("/"))).toEqual([
      ".env.example",
      ".env.local.sample",
      ".envrc",
      ".well-known/security.txt",
      "config/.env.template",
      "node_modules/dotenv-tests/.env",
    ]);
    expect(listing.dotenv).toEqual([".env", ".env.production.local", "config/.env"]);
    expect(isDotenv("x.env")).toBe(false);
  });

  test("settings that may hold a registry's token are left out and named; .warrenignore takes them along", async () => {
    await using at = await directory();
    const files = {
      ".npmrc": "//registry.example/:_authToken=secret\n",
      ".yarnrc": "",
      "api/.yarnrc.yml": "npmAuthToken: secret\n",
      npmrc: "",
      ".npmrc.d/kept": "",
      "node_modules/some/.npmrc": "",
    };
    await write(at.path, files);
    const { names, listing } = await listed(at.path);
    const kept = [".npmrc.d/kept", "node_modules/some/.npmrc", "npmrc"];
    expect(names.filter((name) => !name.endsWith("/"))).toEqual(kept);
    expect(listing.registry).toEqual([".npmrc", ".yarnrc", "api/.yarnrc.yml"]);
    await write(at.path, { ".warrenignore": "!.npmrc\n" });
    const again = await listed(at.path);
    expect(again.names).toContain(".npmrc");
    expect(again.listing.registry).toEqual([".yarnrc", "api/.yarnrc.yml"]);
  });

  test(".warrenignore is read as .gitignore is, and may take a dotenv file along; .gitignore leaves nothing out", async () => {
    await using at = await directory();
    await write(at.path, {
      ".warrenignore": "\uFEFF# not needed at run time\ntest/\n*.log\n!keep.log\n/data\n!.env.public\n",
      ".gitignore": "dist\nnode_modules\n",
      "dist/index.js": "",
      "node_modules/a/index.js": "",
      "src/test/a.test.ts": "",
      "src/data/kept": "",
      "data/rows": "",
      "a.log": "",
      "keep.log": "",
      "Test/kept": "",
      ".env.public": "",
      ".env": "",
    });
    const { names, listing } = await listed(at.path);
    expect(names.filter((name) => !name.endsWith("/"))).toEqual([
      ".env.public",
      ".gitignore",
      "Test/kept",
      "dist/index.js",
      "keep.log",
      "node_modules/a/index.js",
      "src/data/kept",
    ]);
    expect(listing.ignored).toBe(3);
  });

  test("over the bound the largest parts are named, and the remedy", async () => {
    await using at = await directory();
    const kib = (n: number) => "x".repeat(n * 1024);
    await write(at.path, {
      "node_modules/@next/swc/swc.node": kib(90),
      "node_modules/next/dist/a.js": kib(40),
      "node_modules/next/dist/b.js": kib(40),
      ".next/cache/webpack/0.pack": kib(70),
      "data.db": kib(60),
      "public/video.mp4": kib(50),
      "src/small/a.ts": kib(1),
    });
    const message = await failure(at.path, { maxBytes: 100 * 1024 });
    expect(message).toContain(
      "KiB, over 100 KiB. Largest in it: node_modules/@next/swc 91.0 KiB, node_modules/next 82.0 KiB, .next/cache 71.5 KiB, data.db 60.5 KiB, public/video.mp4 50.5 KiB. ",
    );
    expect(message).toContain("list it in .warrenignore");
  });

  test("over the bound on entries the parts with most of them are named", async () => {
    await using at = await directory();
    await write(at.path, { "index.ts": "" });
    await mkdir(join(at.path, "uploads", "images"), { recursive: true });
    for (let i = 0; i < 20; i++) await writeFile(join(at.path, "uploads", "images", `${i}`), "");
    const message = await failure(at.path, { maxEntries: 10 });
    expect(message).toContain("has more than 10 files and directories. Most are in: uploads/images 21, ");
  });
});
