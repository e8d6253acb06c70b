import { describe, expect, test } from "bun:test";
import { appendFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { directory, entriesOf, failure, write } from "./packed.ts";

/** More than any buffer on the way: what comes after it in the tar is not opened before it was read. */
const big = "x".repeat(8 * 1024 * 1024);

describe("files with odd names", () => {
  test("newlines, other scripts, leading dashes, backslashes and long paths come out as they went in", async () => {
    await using at = await directory();
    const names = [
      "a\nb.ts",
      "-rf",
      "--help",
      "back\\slash",
      "grüße-日本語-🐇.ts",
      "e\u0301.ts",
      "tab\there",
      " ",
      `${"d".repeat(120)}/${"e".repeat(120)}/${"f".repeat(250)}.ts`,
      `${"ü".repeat(100)}/x`,
    ];
    await write(at.path, Object.fromEntries(names.map((name, i) => [name, `content ${i}`])));
    await symlink(`${"d".repeat(120)}/${"e".repeat(120)}/${"f".repeat(250)}.ts`, join(at.path, "link"));
    const found = await entriesOf(at.path);
    const contents = new Map(found.map(({ name, content }) => [name, content]));
    for (const [i, name] of names.entries())
      expect([name, contents.get(name)]).toEqual([name, `content ${i}`]);
    expect(found.find(({ name }) => name === "link")?.target).toHaveLength(120 + 1 + 120 + 1 + 253);
  });

  test("a path that no node would take, or that is not UTF-8, is named", async () => {
    await using at = await directory();
    const parts = Array.from({ length: 6 }, () => "d".repeat(200)).join("/");
    await write(at.path, { [`${parts}/x`]: "" });
    expect(await failure(at.path)).toContain("has a path of more than 1024 characters");
    await rm(join(at.path, "d".repeat(200)), { recursive: true });
    await writeFile(Buffer.concat([Buffer.from(`${at.path}/`), Buffer.from([0x66, 0xff])]), "");
    expect(await failure(at.path)).toContain("has a name that is not UTF-8");
  });
});

describe("files that change while they are packed", () => {
  test("one that grows has the size that it had when it was opened, and the tar is whole", async () => {
    await using at = await directory();
    await write(at.path, { "a.bin": big, "b.log": "one\n", "c.ts": "after" });
    const found = await entriesOf(at.path, {}, async () => {
      await appendFile(join(at.path, "a.bin"), "more");
      await appendFile(join(at.path, "b.log"), "two\n");
    });
    expect(found.map(({ name, content }) => [name, content.length])).toEqual([
      ["a.bin", big.length],
      ["b.log", 8],
      ["c.ts", 5],
    ]);
  });

  test("one that becomes shorter while it is read ends the packing", async () => {
    await using at = await directory();
    await write(at.path, { "a.bin": big });
    const message = await failure(at.path, {}, () => truncate(join(at.path, "a.bin"), 1_000));
    expect(message).toContain("a.bin became shorter while the directory was packed: try again");
  });

  test("one that vanishes, or becomes a link, ends the packing", async () => {
    await using at = await directory();
    await write(at.path, { "a.bin": big, "z.log": "x" });
    const gone = await failure(at.path, {}, () => rm(join(at.path, "z.log")));
    expect(gone).toContain("z.log vanished while the directory was packed: try again");
    await write(at.path, { "z.log": "x" });
    const linked = await failure(at.path, {}, async () => {
      await rm(join(at.path, "z.log"));
      await symlink("/etc/passwd", join(at.path, "z.log"));
    });
    expect(linked).toContain("z.log became something else than a file");
  });

  test("what grows over the bound after it was listed is refused", async () => {
    await using at = await directory();
    await write(at.path, { "a.bin": big, "b.log": "" });
    const message = await failure(at.path, { maxBytes: big.length + 2_000 }, () =>
      appendFile(join(at.path, "b.log"), "x".repeat(4_000)),
    );
    expect(message).toContain("over 8.0 MiB");
  });
});
