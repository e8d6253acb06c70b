/** Every test that docs/PROMISES.md names must be there, in the file it is said to be in. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const wrong: string[] = [];
let named = 0;
for (const [, file, name] of readFileSync(join(root, "docs/PROMISES.md"), "utf8").matchAll(
  /^- `([^`]+)` "(.+)"$/gm,
)) {
  named++;
  const path = join(root, file!);
  if (!existsSync(path)) wrong.push(`docs/PROMISES.md: there is no ${file}`);
  else if (!readFileSync(path, "utf8").includes(name!))
    wrong.push(`docs/PROMISES.md: ${file} has no test "${name}"`);
}
if (named === 0) wrong.push("docs/PROMISES.md names no test at all");
if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
