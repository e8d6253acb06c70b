/** The log files of `warren up`: bounded, and what a failed child said. */
import { afterAll, expect, test } from "bun:test";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lastWords, rotateLog, sizeOf } from "../src/up/child-log.ts";

const directory = mkdtempSync(join(tmpdir(), "warren-child-log-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("a log that has grown too large is begun anew, and so many older ones are kept", () => {
  const file = join(directory, "a.log");
  const bounds = { bytes: 10, files: 2 };
  writeFileSync(file, "short");
  expect(rotateLog(file, bounds)).toBe(false);
  for (const text of ["first, and long", "second, and long", "third, and long"]) {
    writeFileSync(file, text);
    expect(rotateLog(file, bounds)).toBe(true);
    expect(sizeOf(file)).toBe(0);
  }
  expect(readFileSync(`${file}.1`, "utf8")).toBe("third, and long");
  expect(readFileSync(`${file}.2`, "utf8")).toBe("second, and long");
  expect(existsSync(`${file}.3`)).toBe(false);
});

test("the last words of a child are its own, not those of one before it", () => {
  const file = join(directory, "b.log");
  writeFileSync(file, "port 7420 is taken\n");
  const begins = sizeOf(file);
  appendFileSync(
    file,
    `${JSON.stringify({ level: "fatal", msg: "cannot start", err: { message: "port 1 is taken" } })}\n`,
  );
  expect(lastWords(file, begins)).toBe("fatal: cannot start: port 1 is taken");
});
