/** The contracts: linted, formatted, breaking nothing that was promised, and the generated TypeScript is current. */
import { existsSync } from "node:fs";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Glob } from "bun";

const root = join(import.meta.dir, "..");
const buf = [process.execPath, "--bun", "x", "buf"];
const baseline = "proto/baseline.binpb";

function run(what: string, args: readonly string[], cwd = root): void {
  const done = Bun.spawnSync([...buf, ...args], { cwd, stdout: "pipe", stderr: "pipe" });
  if (done.exitCode === 0) return;
  console.error(`${what}:\n${done.stdout}${done.stderr}`);
  process.exit(1);
}

run("buf lint", ["lint"]);
run("not formatted: 'make fmt' mends it", ["format", "-d", "--exit-code"]);
if (existsSync(join(root, baseline))) {
  run("breaks a promised contract", ["breaking", "proto", "--against", baseline]);
}

const fresh = await mkdtemp(join(tmpdir(), "warren-gen-"));
try {
  await cp(join(root, "proto/gen"), join(fresh, "before"), { recursive: true });
  run("buf generate", ["generate", "-o", fresh]);
  const names = async (directory: string) =>
    (await Array.fromAsync(new Glob("**/*.ts").scan({ cwd: directory }))).sort();
  const [before, after] = [join(fresh, "before"), join(fresh, "proto/gen")];
  const stale = new Set<string>();
  for (const name of new Set([...(await names(before)), ...(await names(after))])) {
    const [a, b] = [Bun.file(join(before, name)), Bun.file(join(after, name))];
    if (!(await a.exists()) || !(await b.exists()) || (await a.text()) !== (await b.text())) stale.add(name);
  }
  if (stale.size) {
    console.error(`generated TypeScript is not current ('make gen'): ${[...stale].join(", ")}`);
    process.exit(1);
  }
} finally {
  await rm(fresh, { recursive: true });
}
