/**
 * Makes the package that tenants install, for Bun and Node ≥ 20: one ESM file without dependencies, its types, and a
 * manifest that names both. The workspace itself uses the sources.
 *
 *     bun worker/build.ts [DIRECTORY]      default worker/dist
 */
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const here = import.meta.dir;
const outdir = resolve(process.argv[2] ?? join(here, "dist"));
const entry = join(here, "src/index.ts");

const built = await Bun.build({
  entrypoints: [entry],
  target: "node",
  format: "esm",
  outdir,
  naming: "index.js",
});
if (!built.success) {
  console.error(built.logs.join("\n"));
  process.exit(1);
}

const flags =
  "--declaration --emitDeclarationOnly --allowImportingTsExtensions --strict --skipLibCheck".split(" ");
const target = "--target esnext --module esnext --moduleResolution bundler --types bun".split(" ");
const types = Bun.spawnSync(
  [
    process.execPath,
    "x",
    "--no-install",
    "tsc",
    "--ignoreConfig",
    ...flags,
    ...target,
    "--outDir",
    outdir,
    entry,
  ],
  { cwd: join(here, ".."), env: { ...process.env, BUN_BE_BUN: "1" }, stdout: "inherit", stderr: "inherit" },
);
if (types.exitCode !== 0) process.exit(1);
// tsc leaves "./x.ts" in declarations, where only "./x.js" finds x.d.ts under every module resolution.
for (const name of readdirSync(outdir).filter((file) => file.endsWith(".d.ts"))) {
  const path = join(outdir, name);
  writeFileSync(path, readFileSync(path, "utf8").replace(/(from "\.[^"]*)\.ts"/g, '$1.js"'));
}

const { private: _, exports: __, ...manifest } = await Bun.file(join(here, "package.json")).json();
writeFileSync(
  join(outdir, "package.json"),
  `${JSON.stringify(
    {
      ...manifest,
      exports: { ".": { types: "./index.d.ts", default: "./index.js" } },
      files: ["*.js", "*.d.ts"],
      engines: { bun: ">=1.2", node: ">=20" },
      sideEffects: false,
    },
    null,
    2,
  )}\n`,
);
copyFileSync(join(here, "README.md"), join(outdir, "README.md"));
copyFileSync(join(here, "../LICENSE"), join(outdir, "LICENSE"));
