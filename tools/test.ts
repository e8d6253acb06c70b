/**
 * Runs tests room by room, two rooms at a time, and closes with one line that counts them all: "N passed, N failed".
 * Of a whole run, a file that fails runs once more at the end, alone: what fails then is broken, what passes was starved of
 * its machine and is named before the last line. A test that only fails now and then is still a bug.
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
  ...["metering", "store", "common", "cli", "gateway", "worker", "scheduler", "client"].map(whole),
];
/** Of those on whole cells, which must not be disturbed: they count every failed request, or what lives at any moment. */
const strict = ["cap", "density", "failover", "faults", "load", "rejoin", "replace", "sleep"].map(
  (name) => `test/integration/${name}.test.ts`,
);
/** Long ones that bear each other: what they hold is a rule under load, not a time. */
const long: Group[] = [
  whole("test/metering"),
  {
    name: "test/integration, others",
    paths: filesOf("test/integration").filter((path) => !strict.includes(path)),
  },
  whole("test/sim"),
];
/** Alone, one after the other: what they measure or kill must not be disturbed. */
const alone: Group[] = [
  whole("agent/long"),
  { name: "test/integration", paths: strict },
  whole("test/hosts"),
];
const lanes = 2;

/** What one `bun test` runs. */
interface Group {
  readonly name: string;
  readonly paths: readonly string[];
}

function whole(path: string): Group {
  return { name: path, paths: [path] };
}

function filesOf(path: string): string[] {
  const names = readdirSync(join(root, path)).filter((file) => file.endsWith(".test.ts"));
  return names.sort().map((name) => `${path}/${name}`);
}

/** A directory that takes longer than all others together, as two groups of every other file. */
function halves(path: string): Group[] {
  return [0, 1].map((half) => ({
    name: `${path} ${half + 1}/2`,
    paths: filesOf(path).filter((_, i) => i % 2 === half),
  }));
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  failures: Failure[];
}

interface Failure {
  /** From the root; empty where the run did not get so far. */
  readonly file: string;
  readonly test: string;
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
        // A CI's environment says CI, which is taken for a terminal that shows colours; tests compare plain text.
        NO_COLOR: "1",
        FORCE_COLOR: undefined,
        // What the quick gate leaves out: see common/src/testing/quick.ts.
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
  const broken = { file: "", test: `${name} failed outside of any test, or did not get to its end` };
  if (!total) return { passed: 0, failed: 1, skipped: 0, failures: [broken] };
  const [tests, failed, skipped] = total.slice(1).map(Number) as [number, number, number];
  noteTimes(xml);
  const failures = failuresIn(xml);
  // A failure outside of any test (a hook, an import) counts as one.
  const unseen = code !== 0 && failed === 0 ? 1 : 0;
  if (unseen) failures.push(broken);
  return { passed: tests - failed - skipped, failed: failed + unseen, skipped, failures };
}

/** Of each file, from a JUnit report: `<testsuite name="…" file="…" … time="…"`. */
function noteTimes(xml: string): void {
  for (const [, file, seconds] of xml.matchAll(/<testsuite name="([^"]+\.test\.ts)"[^>]* time="([\d.]+)"/g)) {
    times.push({ file: file!, seconds: Number(seconds) });
  }
}

/** From a JUnit report: `<testcase name="…" … file="…"><failure …/></testcase>`. */
function failuresIn(xml: string): Failure[] {
  const found: Failure[] = [];
  for (const [, attributes = ""] of xml.matchAll(/<testcase\b([^>]*[^/])>\s*<(?:failure|error)\b/g)) {
    const attribute = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
    found.push({ file: attribute("file"), test: attribute("name") });
  }
  return found;
}

/** Once more and alone, the files that failed. Their first counts are replaced by the second. */
async function again(counts: Counts[], directory: string): Promise<Counts[]> {
  const failures = counts.flatMap((one) => one.failures);
  const files = [...new Set(failures.map(({ file }) => file))];
  const most = 4;
  if (
    files.length === 0 ||
    files.length > most ||
    !files.every((file) => file && existsSync(join(root, file)))
  )
    return counts;
  console.log(`\n== once more, alone: ${files.join(", ")}`);
  const second = await run({ name: "once more", paths: files }, directory);
  const passedNow = failures.length - second.failed;
  for (const { file, test } of failures) starved.push(`${file}: ${test}`);
  const first: Counts = {
    passed: sum(counts, "passed"),
    failed: 0,
    skipped: sum(counts, "skipped"),
    failures: [],
  };
  // Those of the files that had passed passed twice, and count once.
  return [{ ...first, passed: first.passed + passedNow, failed: second.failed, failures: second.failures }];
}

/** So many at a time, in this order. */
async function runAll(groups: readonly Group[], atOnce: number, directory: string): Promise<Counts[]> {
  const left = [...groups];
  const counts: Counts[] = [];
  const lane = async () => {
    for (let group = left.shift(); group !== undefined; group = left.shift()) {
      const paths = await Promise.all(group.paths.map(hasTests));
      if (paths.some(Boolean)) counts.push(await run(group, directory));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return counts;
}

function sum(counts: readonly Counts[], key: "passed" | "failed" | "skipped"): number {
  return counts.reduce((total, one) => total + one[key], 0);
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
const beside = asked[0] === "all" ? long : [];
const apart = asked[0] === "all" ? alone : isQuick ? [] : asked.map(whole);
const directory = await mkdtemp(join(tmpdir(), "warren-tests-"));
const starved: string[] = [];
const times: { file: string; seconds: number }[] = [];
let counts: Counts[];
try {
  const first = [
    ...(await runAll(together, lanes, directory)),
    ...(await runAll(beside, lanes, directory)),
    ...(await runAll(apart, 1, directory)),
  ];
  counts = asked[0] === "all" || isQuick ? await again(first, directory) : first;
} finally {
  await rm(directory, { recursive: true, force: true });
}
const slowest = times.toSorted((a, b) => b.seconds - a.seconds).slice(0, 12);
if (asked[0] === "all" || isQuick)
  console.log(
    `\nslowest:\n  ${slowest.map(({ file, seconds }) => `${seconds.toFixed(0)} s  ${file}`).join("\n  ")}`,
  );
const [passed, failed, skipped] = [sum(counts, "passed"), sum(counts, "failed"), sum(counts, "skipped")];
if (starved.length) console.log(`\nfailed at first, then ran alone:\n  ${starved.join("\n  ")}`);
const failures = counts.flatMap((one) => one.failures);
if (failures.length)
  console.log(
    `\nfailed:\n  ${failures.map(({ file, test }) => (file ? `${file}: ${test}` : test)).join("\n  ")}`,
  );
console.log(`\n${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
process.exit(failed || passed === 0 ? 1 : 0);
