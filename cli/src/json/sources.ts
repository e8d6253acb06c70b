/** Texts of the generated contracts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";

export function generatedSources(): string[] {
  const cwd = join(import.meta.dir, "../../../proto/gen/warren");
  const paths = [...new Glob("**/*_pb.ts").scanSync({ cwd })].sort();
  return paths.map((path) => readFileSync(join(cwd, path), "utf8"));
}
