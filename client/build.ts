/**
 * Makes the package that control planes install, for Bun and Node ≥ 20: one ESM file with the workspace's sources, its
 * types, and a manifest whose dependencies npm can install. The workspace itself uses the sources.
 *
 *     bun client/build.ts [DIRECTORY]      default client/dist
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const here = import.meta.dir;
const root = join(here, "..");
const outdir = resolve(process.argv[2] ?? join(here, "dist"));
const entry = join(here, "src/index.ts");
const catalog: Record<string, string> = (await Bun.file(join(root, "package.json")).json()).workspaces
  .catalog;

/** Of this only a descriptor is needed: as a dependency it would bring a CEL interpreter along. */
const bundled = ["@bufbuild/protovalidate"];
const external = Object.keys(catalog).filter((name) => !bundled.includes(name));

/** @returns npm packages that the bundle imports, with the versions that the workspace is tested with */
async function bundle(): Promise<Record<string, string>> {
  const built = await Bun.build({
    entrypoints: [entry],
    target: "node",
    format: "esm",
    outdir,
    naming: "index.js",
    external: external.flatMap((name) => [name, `${name}/*`]),
  });
  if (!built.success) throw new Error(built.logs.join("\n"));
  const text = readFileSync(join(outdir, "index.js"), "utf8");
  const imports = new Bun.Transpiler({ loader: "js" }).scanImports(text).map(({ path }) => path);
  const names = new Set(imports.filter((path) => !path.startsWith("node:")).map(packageOf));
  return Object.fromEntries([...names].sort().map((name) => [name, versionOf(name)]));
}

const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");

function versionOf(name: string): string {
  const version = catalog[name];
  if (version === undefined) throw new Error(`the bundle imports ${name}, which the catalog does not name`);
  return version;
}

/** Declarations of everything that the entry exports, each room in a folder of its own below types/. */
function declare(): void {
  // Its paths make the workspace's rooms sources to declare; found as packages they would be left out.
  const project = join(here, "tsconfig.package.json");
  const { exitCode, stdout, stderr } = Bun.spawnSync(
    [process.execPath, "x", "--no-install", "tsc", "-p", project, "--outDir", join(outdir, "types")],
    { cwd: root, env: { ...process.env, BUN_BE_BUN: "1" } },
  );
  if (exitCode !== 0) throw new Error(`${stdout}${stderr}`);
  for (const path of new Bun.Glob("types/**/*.d.ts").scanSync({ cwd: outdir })) {
    const file = join(outdir, path);
    writeFileSync(file, withRelativeImports(readFileSync(file, "utf8"), dirname(path)));
  }
  // What gives `Symbol.dispose` its type; not every project's "lib" has it.
  writeFileSync(
    join(outdir, "index.d.ts"),
    '/// <reference lib="esnext.disposable" />\nexport * from "./types/client/src/index.js";\n',
  );
}

/**
 * tsc leaves "./x.ts", where only "./x.js" finds x.d.ts under every module resolution, and names of workspace packages,
 * which exist nowhere else.
 * @param folder of the file, from the package's root
 */
function withRelativeImports(text: string, folder: string): string {
  return text.replace(/(\bfrom |\bimport\()"([^"]+)"/g, (_, keyword: string, specifier: string) => {
    const [, room, part] = /^@warren\/(common|proto)\/(.+)$/.exec(specifier) ?? [];
    if (room === undefined) return `${keyword}"${specifier.replace(/^(\..*)\.ts$/, "$1.js")}"`;
    const target = `types/${room}/${room === "common" ? "src/" : ""}${part}`;
    if (!existsSync(join(outdir, `${target}.d.ts`))) throw new Error(`no declarations of ${specifier}`);
    const path = relative(folder, target);
    return `${keyword}"${path.startsWith(".") ? path : `./${path}`}.js"`;
  });
}

async function writeManifest(dependencies: Record<string, string>): Promise<void> {
  const { name, version, description, license, type } = await Bun.file(join(here, "package.json")).json();
  const manifest = {
    name,
    version,
    description,
    license,
    type,
    exports: { ".": { types: "./index.d.ts", default: "./index.js" } },
    types: "./index.d.ts",
    files: ["index.js", "index.d.ts", "types"],
    engines: { node: ">=20", bun: ">=1.2" },
    sideEffects: false,
    dependencies,
  };
  writeFileSync(join(outdir, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

try {
  // Only what this script writes, so that a wrong argument costs nobody a directory.
  rmSync(join(outdir, "types"), { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  const dependencies = await bundle();
  declare();
  await writeManifest(dependencies);
  copyFileSync(join(here, "README.md"), join(outdir, "README.md"));
  copyFileSync(join(root, "LICENSE"), join(outdir, "LICENSE"));
  const { name, version } = await Bun.file(join(outdir, "package.json")).json();
  const shown = relative(process.cwd(), outdir) || ".";
  console.log(
    `${name} ${version} is in ${shown}: 'npm pack ${shown}/' makes a tarball to install or publish`,
  );
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}
