/** What a start script of package.json comes to. Pure. */

/** How a start script is run. */
export type StartScript =
  /** `bun FILE` or `node FILE` and nothing else: the file is the app's entry. */
  | { readonly kind: "file"; readonly file: string }
  /** One program of Bun's with arguments that no shell would change: it can be run without one. */
  | { readonly kind: "words"; readonly words: readonly string[] }
  /** A shell is to read it. */
  | { readonly kind: "shell" };

/** No quotes, variables, globs, redirections or operators; no assignment, which needs a shell as a first word only. */
const plainWord = /^[\w@%+:,./=-]+$/;
const programs = ["bun", "node"];
/** `bun NAME` means these of Bun's own commands before a file of that name. */
const bunCommands = new Set([
  ...["add", "audit", "build", "c", "create", "exec", "feedback", "i", "info", "init", "install", "link"],
  ...[
    "outdated",
    "patch",
    "pm",
    "publish",
    "remove",
    "repl",
    "rm",
    "run",
    "test",
    "unlink",
    "update",
    "upgrade",
    "x",
  ],
]);

/** @param hasHooks whether package.json has a prestart or poststart script too */
export function parseStartScript(script: string, hasHooks: boolean): StartScript {
  const words = script.trim().split(/\s+/);
  const [program = "", ...rest] = words;
  if (hasHooks || !programs.includes(program) || !words.every((word) => plainWord.test(word))) {
    return { kind: "shell" };
  }
  const args = program === "bun" && rest[0] === "run" ? rest.slice(1) : rest;
  const [file] = args;
  const isName = file !== undefined && args.length === 1 && !file.startsWith("-") && !bunCommands.has(file);
  // "bun run build" names a script, "bun run ./build.ts" a file.
  if (isName && (program === "node" || looksLikeFile(file))) return { kind: "file", file };
  if (
    program === "bun" &&
    rest[0] === "run" &&
    args.some((word) => !word.startsWith("-") && !looksLikeFile(word))
  ) {
    return { kind: "shell" };
  }
  return { kind: "words", words };
}

function looksLikeFile(word: string): boolean {
  return word.includes("/") || /\.[cm]?[jt]sx?$/.test(word);
}
