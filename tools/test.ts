/**
 * Runs tests room by room, two rooms at a time, and closes with one line that counts them all: "N passed, N failed".
 *
 *     bun tools/test.ts unit       the rooms' own tests
 *     bun tools/test.ts all        these, what takes minutes, and what needs more than one room
 *     bun tools/test.ts PATH…      only these: agent, agent/long, test/integration/up.test.ts
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
/** The longest first, so that the other lane is not left idle at the end. */
const unit: Group[] = [
  ...halves("agent/test"),
  ...["gateway", "store", "common", "scheduler", "metering", "cli", "client", "worker"].map(whole),
];
/** Alone, one after the other: what they measure or kill must not be disturbed. */
const alone: Group[] = ["agent/long", "test"].map(whole);
const lanes = 2;

/** What one `bun test` runs. */
interface Group {
  readonly name: string;
  readonly paths: readonly string[];
}

function whole(path: string): Group {
  return { name: path, paths: [path] };
}

/** A directory that takes longer than all others together, as two groups of every other file. */
function halves(path: string): Group[] {
  const files = readdirSync(join(root, path)).filter((file) => file.endsWith(".test.ts"));
  return [0, 1].map((half) => ({
    name: `${path} ${half + 1}/2`,
    paths: files.sort().flatMap((file, i) => (i % 2 === half ? [`${path}/${file}`] : [])),
  }));
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

async function run({ name, paths }: Group, directory: string): Promise<Counts> {
  const report = join(directory, `${name.replaceAll(/[^\w]/g, "-")}.xml`);
  const began = performance.now();
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      ...paths.map((path) => `./${path}${statSync(join(root, path)).isDirectory() ? "/" : ""}`),
      "--only-failures",
      "--timeout=30000",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
    ],
    {
      cwd: root,
      stdout: "pipe",
      stderr: "pipe",
      env: {
        ...process.env,
        WARREN_LOG: process.env.WARREN_LOG ?? "silent",
        // The quick gate leaves out what is only another way to the same: see agent/test/lifecycle.test.ts.
        ...(isQuick ? { WARREN_TEST_QUICK: "1" } : {}),
      },
    },
  );
  // Whole, so that what two say at once is not mixed.
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  console.log(`\n== ${name} (${((performance.now() - began) / 1000).toFixed(0)} s)\n${out}${err}`.trimEnd());
  const xml = existsSync(report) ? await Bun.file(report).text() : "";
  const total = /<testsuites[^>]* tests="(\d+)"[^>]* failures="(\d+)"[^>]* skipped="(\d+)"/.exec(xml);
  if (!total) return { passed: 0, failed: 1, skipped: 0 }; // it did not even get to its end
  const [tests, failed, skipped] = total.slice(1).map(Number) as [number, number, number];
  // A failure outside of any test (a hook, an import) counts as one.
  const unseen = code !== 0 && failed === 0 ? 1 : 0;
  return { passed: tests - failed - skipped, failed: failed + unseen, skipped };
}

/** So many at a time, in this order. */
async function runAll(groups: readonly Group[], atOnce: number, directory: string): Promise<Counts[]> {
  const left = [...groups];
  const counts: Counts[] = [];
  const lane = async () => {
    for (let group = left.shift(); group !== undefined; group = left.shift()) {
      if (await hasTests(group.paths[0]!)) counts.push(await run(group, directory));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return counts;
}

async function hasTests(path: string): Promise<boolean> {
  const cwd = join(root, path);
  if (!existsSync(cwd)) throw new Error(`there is no ${path}`);
  if (!statSync(cwd).isDirectory()) return true;
  for await (const _ of new Bun.Glob("**/*.test.ts").scan({ cwd, onlyFiles: true })) return true;
  return false;
}

const asked = process.argv.slice(2);
const isQuick = asked[0] === "unit";
const together = isQuick || asked[0] === "all" ? unit : [];
const apart = asked[0] === "all" ? alone : isQuick ? [] : asked.map(whole);
const directory = await mkdtemp(join(tmpdir(), "warren-tests-"));
let counts: Counts[];
try {
  counts = [...(await runAll(together, lanes, directory)), ...(await runAll(apart, 1, directory))];
} finally {
  await rm(directory, { recursive: true, force: true });
}
const sum = (key: keyof Counts) => counts.reduce((total, one) => total + one[key], 0);
const [passed, failed, skipped] = [sum("passed"), sum("failed"), sum("skipped")];
console.log(`\n${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
process.exit(failed || passed === 0 ? 1 : 0);
