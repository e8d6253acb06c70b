/** Comments of the contracts, which the generated code carries only as comments. Pure. */
import type { Comments } from "./page.ts";

/** @param sources texts of generated files */
export function commentsOf(sources: Iterable<string>): Comments {
  const found = new Map<string, string>();
  for (const source of sources) {
    let message = "";
    for (const [, block] of source.matchAll(/\/\*\*\n((?:\s*\*.*\n)+?)\s*\*\//g)) {
      const lines = block!.split("\n").map((line) => line.replace(/^\s*\*\s?/, ""));
      const at = lines.findIndex((line) => line.startsWith("@generated from "));
      const text = lines.slice(0, Math.max(0, at)).join(" ").trim();
      const [, kind, what] = /^@generated from (message|field):? (.*)$/.exec(lines[at] ?? "") ?? [];
      if (kind === "message") {
        message = what!;
        found.set(message, text);
      }
      if (kind === "field") found.set(`${message}.${/(\w+) = \d+/.exec(what!)?.[1]}`, text);
    }
  }
  return found;
}
