import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { findEntry, NothingToRunError } from "../src/entry.ts";

const root = mkdtempSync(join(tmpdir(), "warren-entry-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let apps = 0;

/** An app of these files; `manifest` is its package.json. */
function app(manifest: object | string | undefined, ...files: string[]): string {
  const directory = join(root, `app${apps++}`);
  mkdirSync(directory);
  if (manifest !== undefined) {
    const text = typeof manifest === "string" ? manifest : JSON.stringify(manifest);
    writeFileSync(join(directory, "package.json"), text);
  }
  for (const file of files) {
    mkdirSync(dirname(join(directory, file)), { recursive: true });
    writeFileSync(join(directory, file), "");
  }
  return directory;
}

/** "file src/index.ts", "words bun --smol x.ts", or "script". */
function found(directory: string): string {
  const entry = findEntry(directory);
  if (entry.kind === "file") return `file ${relative(directory, entry.path)}`;
  return entry.kind === "words" ? `words ${entry.words.join(" ")}` : "script";
}

const start = (script: string, more: object = {}) => ({
  module: "index.ts",
  scripts: { start: script, ...more },
});

describe("the start script", () => {
  test("that only names a file makes that file the entry, whatever module says", () => {
    for (const script of [
      "bun server/main.ts",
      "bun run server/main.ts",
      "node server/main.ts",
      "  bun  ./server/main.ts ",
    ]) {
      expect(found(app(start(script), "index.ts", "server/main.ts"))).toBe("file server/main.ts");
    }
    expect(found(app(start("node dist/x.js"), "dist/x.ts"))).toBe("file dist/x.ts");
    expect(found(app(start("bun ./src"), "src/index.tsx"))).toBe("file src/index.tsx");
  });

  test("with flags or arguments is run with them, without a shell", () => {
    for (const script of [
      "bun --smol index.ts",
      "bun server/main.ts --mode=prod",
      "node --enable-source-maps dist/index.js",
      "bun --preload ./trace.ts index.ts",
    ]) {
      expect(found(app(start(script), "index.ts"))).toBe(`words ${script}`);
    }
  });

  test("that needs a shell, or has hooks around it, is run by bun run", () => {
    for (const script of [
      "FEATURE=on bun index.ts",
      "bun build.ts && bun index.ts",
      'bun index.ts "two words"',
      "bun index.ts $PORT",
      "next start -p 3000",
      "vite preview",
      "bun run serve",
      "bun ../elsewhere.ts",
    ]) {
      expect(found(app(start(script), "index.ts"))).toBe("script");
    }
    expect(found(app(start("bun index.ts", { prestart: "bun migrate.ts" }), "index.ts"))).toBe("script");
  });

  test("that names a file which is not there is an error that says so, and nothing else is run in its place", () => {
    const directory = app(start("node dist/server.js"), "index.ts");
    expect(() => findEntry(directory)).toThrow(
      /start script of package.json runs dist\/server.js, which is not there/,
    );
  });
});

describe("without a start script", () => {
  test("module comes before main, and both before a conventional name", () => {
    expect(found(app({ module: "a.ts", main: "b.ts" }, "a.ts", "b.ts", "index.ts"))).toBe("file a.ts");
    expect(found(app({ module: "gone.ts", main: "b.ts" }, "b.ts", "index.ts"))).toBe("file b.ts");
    expect(found(app({ module: "gone.ts" }, "index.ts"))).toBe("file index.ts");
  });

  test("what they name is resolved as Bun does", () => {
    expect(found(app({ main: "src/index.js" }, "src/index.ts"))).toBe("file src/index.ts");
    expect(found(app({ main: "x.mjs" }, "x.mts"))).toBe("file x.mts");
    expect(found(app({ main: "./lib/serve" }, "lib/serve.jsx"))).toBe("file lib/serve.jsx");
    expect(found(app({ main: "lib" }, "lib/index.mjs"))).toBe("file lib/index.mjs");
    expect(found(app({ main: "." }, "index.js"))).toBe("file index.js");
  });

  test("what they name must be a program inside the directory", () => {
    app(undefined, "outside.ts");
    for (const main of ["index.html", "../app0/outside.ts", "/etc/passwd", "..", "style.css"]) {
      expect(found(app({ main }, "index.html", "style.css", "server.ts"))).toBe("file server.ts");
    }
    // A sibling of the directory must not be taken for its source.
    const named = join(root, "site.js");
    mkdirSync(named);
    writeFileSync(join(root, "site.ts"), "");
    writeFileSync(join(named, "package.json"), '{"main":"."}');
    expect(() => findEntry(named)).toThrow(NothingToRunError);
  });

  test("conventional names are tried in their order", () => {
    const order = [
      "index.ts",
      "index.tsx",
      "index.js",
      "src/index.ts",
      "src/index.tsx",
      "server.mjs",
      "src/server.ts",
      "app.js",
    ];
    for (let i = 0; i < order.length; i++) {
      expect(found(app(undefined, ...order.slice(i)))).toBe(`file ${order[i]}`);
    }
  });

  test("a file that does not name its kind, and a package.json with a byte order mark, are read all the same", () => {
    expect(found(app({ main: "serve" }, "serve"))).toBe("file serve");
    expect(found(app('\uFEFF{"main":"x.ts"}', "x.ts"))).toBe("file x.ts");
  });

  test("the error names all that was tried", () => {
    const directory = app({ main: "dist/index.js" }, "src/main.ts");
    const message = (() => {
      try {
        findEntry(directory);
      } catch (error) {
        return (error as Error).message;
      }
    })();
    for (const part of [
      "no start script",
      'no "module"',
      '"main", dist/index.js',
      "src/index",
      "src/server",
      ".tsx",
      "app",
    ]) {
      expect(message).toContain(part);
    }
  });

  test("a package.json that is not JSON is an error", () => {
    expect(() => findEntry(app("{", "index.ts"))).toThrow(/package.json cannot be read/);
  });
});
