/** Bundles the client for Node ≥ 20 into one ESM file: workspace packages are sources, which Node does not run. */
import { join } from "node:path";

const built = await Bun.build({
  entrypoints: [join(import.meta.dir, "src/index.ts")],
  target: "node",
  format: "esm",
  outdir: process.argv[2] ?? join(import.meta.dir, "dist"),
  naming: "index.js",
});
if (!built.success) {
  console.error(built.logs.join("\n"));
  process.exit(1);
}
