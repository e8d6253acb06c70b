/**
 * What is run for an app whose spec names no command, found as Bun and other platforms find it. The agent starts by this
 * and `warren deploy` checks by it before the upload, so that both say the same.
 */
import { readFileSync, statSync } from "node:fs";
import { extname, join, relative, resolve, sep } from "node:path";
import { isMissing } from "./files.ts";
import { parseStartScript } from "./start-script.ts";

/** What is run, and where that was found. */
export type Entry = { readonly from: string } & (
  | { readonly kind: "file"; readonly path: string }
  /** A program and its arguments, as the start script has them. */
  | { readonly kind: "words"; readonly words: readonly string[] }
  /** `bun run start`. */
  | { readonly kind: "script" }
);

/** There is nothing to run in a directory; the message says what was looked for. */
export class NothingToRunError extends Error {
  override readonly name = "NothingToRunError";
}

const extensions = ["ts", "tsx", "js", "jsx", "mjs", "mts", "cjs", "cts"];
const conventional = ["index", "src/index", "server", "src/server", "app"];
/** What TypeScript calls a file that is compiled to this one, as Bun does. */
const sources: Readonly<Record<string, readonly string[]>> = {
  ".js": [".ts", ".tsx"],
  ".jsx": [".tsx"],
  ".mjs": [".mts"],
  ".cjs": [".cts"],
};

interface Manifest {
  readonly module: unknown;
  readonly main: unknown;
  readonly start: string | undefined;
  readonly hasHooks: boolean;
}

const noManifest: Manifest = { module: undefined, main: undefined, start: undefined, hasHooks: false };

/**
 * The start script if there is one; else what "module" or "main" name; else a file with a conventional name.
 * @throws NothingToRunError naming all that was tried
 */
export function findEntry(directory: string): Entry {
  const manifest = readManifest(directory);
  if (manifest.start !== undefined) return entryOfScript(directory, manifest.start, manifest.hasHooks);
  const tried: string[] = ["package.json has no start script"];
  for (const field of ["module", "main"] as const) {
    const named = manifest[field];
    if (typeof named !== "string" || named === "") {
      tried.push(`no "${field}"`);
      continue;
    }
    const path = resolveProgram(directory, named);
    if (path !== undefined) return { kind: "file", path, from: `"${field}" of package.json` };
    tried.push(`its "${field}", ${named}, is not there or is no program`);
  }
  for (const name of conventional) {
    const path = withExtension(join(directory, name));
    if (path !== undefined) return { kind: "file", path, from: `the file ${relative(directory, path)}` };
  }
  throw new NothingToRunError(
    `nothing to run: ${tried.join(", ")}, and there is no ${conventional.join(", ")} with ${extensions.map((one) => `.${one}`).join(", ")}; name the file with "main" in package.json, or give a start script or a command`,
  );
}

function entryOfScript(directory: string, start: string, hasHooks: boolean): Entry {
  const from = "the start script of package.json";
  const script = parseStartScript(start, hasHooks);
  switch (script.kind) {
    case "shell":
      return { kind: "script", from };
    case "words":
      return { kind: "words", words: script.words, from };
    case "file": {
      const isInside = isWithin(directory, resolve(directory, script.file));
      if (!isInside || resolve(directory, script.file) === directory) return { kind: "script", from };
      const path = resolveProgram(directory, script.file);
      if (path !== undefined) return { kind: "file", path, from };
      throw new NothingToRunError(
        `nothing to run: the start script of package.json runs ${script.file}, which is not there; build the app first if that makes it, or name another file in the script`,
      );
    }
  }
}

/** The file that Bun would run for this name, within the directory. */
function resolveProgram(directory: string, name: string): string | undefined {
  const path = resolve(directory, name);
  if (!isWithin(directory, path)) return undefined;
  if (path === resolve(directory)) return withExtension(join(path, "index"));
  const extension = extname(path);
  if (isFile(path)) return isProgram(extension) ? path : undefined;
  for (const source of sources[extension] ?? []) {
    const other = path.slice(0, -extension.length) + source;
    if (isFile(other)) return other;
  }
  return withExtension(path) ?? withExtension(join(path, "index"));
}

function isWithin(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way !== ".." && !way.startsWith(`..${sep}`);
}

/** A file without an extension may be one: a script with a `#!` line. */
function isProgram(extension: string): boolean {
  return extension === "" || extensions.includes(extension.slice(1));
}

function withExtension(path: string): string | undefined {
  return extensions.map((extension) => `${path}.${extension}`).find(isFile);
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false; // not there; the next one is tried
  }
}

function readManifest(directory: string): Manifest {
  const path = join(directory, "package.json");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return noManifest;
    throw new NothingToRunError(`package.json cannot be read: ${(error as Error).message}`);
  }
  return parseManifest(text.replace(/^\uFEFF/, ""));
}

function parseManifest(text: string): Manifest {
  let manifest: unknown;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new NothingToRunError(`package.json cannot be read: ${(error as Error).message}`);
  }
  if (typeof manifest !== "object" || manifest === null) return noManifest;
  const { module, main, scripts } = manifest as Record<string, unknown>;
  const { start, prestart, poststart } = (scripts ?? {}) as Record<string, unknown>;
  return {
    module,
    main,
    start: typeof start === "string" && start.trim() !== "" ? start : undefined,
    hasHooks: prestart !== undefined || poststart !== undefined,
  };
}
