/** `make bench NAME=x` runs bench/src/x.ts; without a name, or with a wrong one, it says which there are. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

const directory = join(import.meta.dir, "..");
const names = readdirSync(directory)
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -3));
const name = process.argv[2] ?? "";
if (names.includes(name)) {
  await import(join(directory, `${name}.ts`));
} else {
  const list = names.map((one) => `make bench NAME=${one}`).join("\n");
  console.error(name === "" ? list : `there is no bench ${JSON.stringify(name)}; there are:\n${list}`);
  process.exit(name === "" ? 0 : 2);
}
