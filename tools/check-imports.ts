/**
 * Refuses what DESIGN section 3 forbids: a room importing a room that its table does not name, a relative import that
 * leaves its room, a core that imports its shell, and what is not Node-clean below the client.
 */

import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

const rooms: Record<string, readonly string[]> = {
  proto: [],
  common: ["proto"],
  store: ["proto", "common"],
  agent: ["proto", "common"],
  scheduler: ["proto", "common", "store"],
  gateway: ["proto", "common", "client"],
  metering: ["proto", "common", "store"],
  client: ["proto", "common"],
  worker: [],
  cli: ["proto", "common", "store", "agent", "scheduler", "gateway", "metering", "client", "worker"],
  test: ["proto", "common", "store", "agent", "scheduler", "gateway", "metering", "client", "worker", "cli"],
  bench: [
    "proto",
    "common",
    "store",
    "agent",
    "scheduler",
    "gateway",
    "metering",
    "client",
    "worker",
    "cli",
    "test",
  ],
};

/** What the client may take of common: only that which runs under Node. */
const nodeClean = /^@warren\/common\/(rpc\/|time$|ids$|quantities$)/;

/** Parts of a room that must not know the rest of it. */
const cores = ["scheduler/src/core"];

const root = join(import.meta.dir, "..");
const transpiler = new Bun.Transpiler({ loader: "ts" });
const wrong: string[] = [];

for (const [room, allowed] of Object.entries(rooms)) {
  const manifest = (await Bun.file(join(root, room, "package.json")).json()) as Record<
    string,
    Record<string, string>
  >;
  const declared = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
  for (const name of declared.filter((name) => name.startsWith("@warren/"))) {
    if (!allowed.includes(name.slice(8)))
      wrong.push(`${room}/package.json: ${room} may not depend on ${name}`);
  }
  for await (const path of new Glob(`${room}/**/*.ts`).scan({ cwd: root, onlyFiles: true })) {
    if (path.includes("node_modules") || path.includes("/gen/")) continue;
    const text = await Bun.file(join(root, path)).text();
    const imports = [...transpiler.scanImports(text).map((found) => found.path), ...typeImports(text)];
    for (const specifier of new Set(imports)) check(path, room, allowed, specifier);
  }
}

/** The transpiler forgets imports of types, which count as well. */
function typeImports(text: string): string[] {
  return [...text.matchAll(/^\s*(?:import|export)\s+type\s[^"']*?from\s+"([^"]+)"/gm)].map(
    (match) => match[1]!,
  );
}

function check(path: string, room: string, allowed: readonly string[], specifier: string): void {
  if (specifier.startsWith(".")) {
    const target = normalize(join(dirname(path), specifier));
    if (!target.startsWith(`${room}/`))
      wrong.push(`${path}: ${specifier} leaves the room; import @warren/… instead`);
    const core = cores.find((core) => path.startsWith(`${core}/`));
    if (core && !target.startsWith(`${core}/`))
      wrong.push(`${path}: the core may not import its shell (${specifier})`);
    return;
  }
  if (!specifier.startsWith("@warren/")) return;
  const other = specifier.slice(8).split("/")[0]!;
  const own = other === room && path.startsWith(`${room}/test/`);
  if (!own && !allowed.includes(other))
    wrong.push(`${path}: ${room} may not import ${specifier} (DESIGN section 3)`);
  if (
    room === "client" &&
    other === "common" &&
    path.startsWith("client/src") &&
    !nodeClean.test(specifier)
  ) {
    wrong.push(`${path}: ${specifier} need not run under Node; the client may take only what does`);
  }
}

if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
