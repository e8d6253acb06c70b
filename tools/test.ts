/**
 * Runs tests room by room and closes with one line that counts them all: "N passed, N failed".
 *
 *     bun tools/test.ts unit       the rooms' own tests
 *     bun tools/test.ts all        these, and what needs more than one room
 *     bun tools/test.ts ROOM…      only these
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const unit = ["common", "store", "agent", "scheduler", "gateway", "metering", "client", "worker", "cli"];

const asked = process.argv.slice(2);
const groups = asked[0] === "unit" ? unit : asked[0] === "all" ? [...unit, "test"] : asked;

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

async function run(room: string, directory: string): Promise<Counts> {
  const report = join(directory, `${room}.xml`);
  console.log(`\n== ${room}`);
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      `./${room}/`,
      "--only-failures",
      "--timeout=30000",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
    ],
    {
      cwd: root,
      stdout: "inherit",
      stderr: "inherit",
      env: { ...process.env, WARREN_LOG: process.env.WARREN_LOG ?? "silent" },
    },
  );
  const code = await child.exited;
  const xml = existsSync(report) ? await Bun.file(report).text() : "";
  const total = /<testsuites[^>]* tests="(\d+)"[^>]* failures="(\d+)"[^>]* skipped="(\d+)"/.exec(xml);
  if (!total) return { passed: 0, failed: 1, skipped: 0 }; // it did not even get to its end
  const [tests, failed, skipped] = total.slice(1).map(Number) as [number, number, number];
  // A failure outside of any test (a hook, an import) counts as one.
  const unseen = code !== 0 && failed === 0 ? 1 : 0;
  return { passed: tests - failed - skipped, failed: failed + unseen, skipped };
}

const sum: Counts = { passed: 0, failed: 0, skipped: 0 };
const directory = await mkdtemp(join(tmpdir(), "warren-tests-"));
try {
  for (const room of groups) {
    if (!(await hasTests(room))) continue;
    const counts = await run(room, directory);
    sum.passed += counts.passed;
    sum.failed += counts.failed;
    sum.skipped += counts.skipped;
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
console.log(`\n${sum.passed} passed, ${sum.failed} failed${sum.skipped ? `, ${sum.skipped} skipped` : ""}`);
process.exit(sum.failed || sum.passed === 0 ? 1 : 0);

async function hasTests(room: string): Promise<boolean> {
  for await (const _ of new Bun.Glob("**/*.test.ts").scan({ cwd: join(root, room), onlyFiles: true }))
    return true;
  return false;
}
