import { describe, expect, test } from "bun:test";
import { hasColors } from "../src/colors.ts";
import { escapeAll, escaped, escapedButColors, escapedJson, oneLine } from "../src/terminal.ts";

describe("what tenants say commands no terminal", () => {
  test("sequences of C0, C1 and those that turn text around are shown as their codes", () => {
    expect(escaped("\x1b[2J\x1b]52;c;ZQ==\x07\x9b31m\r\x7f\u202egnp.exe")).toBe(
      "\\x1b[2J\\x1b]52;c;ZQ==\\x07\\x9b31m\\x0d\\x7f\\u202egnp.exe",
    );
    expect(escaped("grüße 日本語 🐇\tx\ny")).toBe("grüße 日本語 🐇\tx\ny");
    expect(oneLine("a\nb")).toBe("a\\nb");
  });

  test("a line of output keeps its colours, which end with it, and nothing else", () => {
    expect(escapedButColors("\x1b[1;31mred\x1b[0m \x1b[2J plain")).toBe(
      "\x1b[1;31mred\x1b[0m \\x1b[2J plain\x1b[0m",
    );
    expect(escapedButColors("plain \x1b]0;title\x07")).toBe("plain \\x1b]0;title\\x07");
  });

  test("JSON keeps the value and loses what a terminal would obey", () => {
    const value = { text: "\x1b[2J\x9b31m\x7f\u202e" };
    const json = escapedJson(JSON.stringify(value));
    expect(json).toMatch(/^[ -~]*$/);
    expect(JSON.parse(json)).toEqual(value);
  });

  test("messages are escaped at any depth, in lists and maps; bytes and numbers stay", () => {
    const bytes = new Uint8Array([0x1b]);
    const message = { a: "\x1b", list: ["\x07", { b: "\x9b" }], map: { c: "\r" }, n: 1n, bytes, none: null };
    escapeAll(message);
    expect(message).toEqual({
      a: "\\x1b",
      list: ["\\x07", { b: "\\x9b" }],
      map: { c: "\\x0d" },
      n: 1n,
      bytes,
      none: null,
    });
    expect(bytes[0]).toBe(0x1b);
  });
});

describe("colours", () => {
  test.each([
    ["a terminal", true, {}, true],
    ["a pipe", false, {}, false],
    ["a pipe in CI", false, { CI: "true" }, false],
    ["a terminal with NO_COLOR", true, { NO_COLOR: "1" }, false],
    ["a terminal that has none", true, { TERM: "dumb" }, false],
    ["a pipe with FORCE_COLOR", false, { FORCE_COLOR: "1" }, true],
    ["a terminal with FORCE_COLOR=0", true, { FORCE_COLOR: "0" }, false],
    ["NO_COLOR over FORCE_COLOR", true, { NO_COLOR: "1", FORCE_COLOR: "1" }, false],
  ])("%s", (_, isTty, env, expected) => {
    expect(hasColors({ isTty, env })).toBe(expected);
  });
});
