/**
 * Every test that docs/PROMISES.md and docs/parity.md name must be there, in the file it is said to be in; and each row
 * of docs/parity.md names one, or says which issue will bring it.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const wrong: string[] = [];

/** `file` "name", anywhere in the text; in a table the name's bars are escaped. */
function testsIn(text: string): { file: string; name: string }[] {
  return [...text.matchAll(/`([^`\s]+\.test\.ts)` "([^"\n]+)"/g)].map(([, file, name]) => ({
    file: file!,
    name: name!.replaceAll("\\|", "|"),
  }));
}

for (const document of ["docs/PROMISES.md", "docs/parity.md"]) {
  const tests = testsIn(readFileSync(join(root, document), "utf8"));
  if (tests.length === 0) wrong.push(`${document} names no test at all`);
  for (const { file, name } of tests) {
    const path = join(root, file);
    if (!existsSync(path)) wrong.push(`${document}: there is no ${file}`);
    else if (!readFileSync(path, "utf8").includes(name)) {
      wrong.push(`${document}: ${file} has no test "${name}"`);
    }
  }
}

const rows = readFileSync(join(root, "docs/parity.md"), "utf8").matchAll(/^\| (?!-)(.+) \|$/gm);
for (const [, row] of rows) {
  const cells = row!.split(/(?<!\\)\|/).map((cell) => cell.trim());
  const [behaviour, held] = [cells[0]!, cells.at(-1)!];
  if (held === "held by" || testsIn(held).length > 0) continue;
  if (!/^not yet: issue \d+/.test(held)) {
    wrong.push(`docs/parity.md: "${behaviour}" names neither a test nor an issue`);
  }
}

if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
