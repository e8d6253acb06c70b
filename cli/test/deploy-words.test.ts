/** What `deploy` and `set` make of what is typed: the app's command, its environment, and what cannot be. */
import { describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { TenantSpecSchema } from "@warren/proto/common";
import { checkSpec } from "../src/check-spec.ts";
import { commandOf, noDirectory } from "../src/command-words.ts";
import { envPair, readEnvFile } from "../src/env.ts";
import { UserError } from "../src/exit.ts";
import { readSpec } from "../src/spec.ts";

describe("the app's command", () => {
  const typed = (line: string) => ["bun", "main.ts", ...line.split(" ")];

  test("what follows -- is taken word by word, flags included", () => {
    const argv = typed("deploy app -- bun --smol x.ts");
    expect(commandOf(["bun", "--smol", "x.ts"], undefined, argv)).toEqual(["bun", "--smol", "x.ts"]);
    expect(commandOf([], ["bun", "x.ts"], typed("deploy app --command bun x.ts"))).toEqual(["bun", "x.ts"]);
    expect(commandOf([], undefined, typed("deploy app"))).toBeUndefined();
  });

  test.each([
    [
      ["b"],
      undefined,
      "deploy a b",
      "too many arguments: b. If that is the app's command, write it after --",
    ],
    [["b", "bun"], undefined, "deploy a b -- bun", "too many arguments: b bun"],
    [["x.ts"], undefined, "deploy -- bun x.ts", "what stands before -- is missing"],
    [["bun"], ["bun"], "deploy a --command bun -- bun", "the command is given twice"],
    [
      [],
      ["bun --smol x.ts"],
      "deploy a",
      "write the command as words: -- bun --smol x.ts, or for a shell: -- sh -c",
    ],
  ])("%j and %j of %j are refused", (operands, flag, line, message) => {
    expect(() => commandOf(operands, flag, typed(line))).toThrow(UserError);
    expect(() => commandOf(operands, flag, typed(line))).toThrow(message);
  });

  test("--command that took the directory is told how to be written", () => {
    expect(noDirectory(["bun", "x.ts", "my app"])).toContain("warren deploy DIR -- bun x.ts 'my app'");
    expect(noDirectory(undefined)).toContain("which directory?");
  });
});

describe("the app's environment", () => {
  test("comes from dotenv files and pairs, pairs last; PORT and HOST of a file stay here", async () => {
    const at = await mkdtemp(join(tmpdir(), "warren-env-"));
    try {
      const file = join(at, ".env.production");
      await writeFile(
        file,
        "\uFEFFA=1\n# note\nexport B=\"two words\"\nC='x\ny'\nPORT=3000\nHOST=localhost\nD=file\n",
      );
      expect(readEnvFile(file)).toEqual({ A: "1", B: "two words", C: "x\ny", D: "file" });
      await writeFile(
        join(at, "package.json"),
        '\uFEFF{"name":"app","warren":{"env":{"A":"package","E":"5"}}}',
      );
      const { env } = readSpec(at, { envFile: [file], env: ["D=flag", "E=a=b"] });
      expect(env).toEqual({ A: "1", B: "two words", C: "x\ny", D: "flag", E: "a=b" });
    } finally {
      await rm(at, { recursive: true });
    }
  });

  test.each([
    ["=x", "must be NAME=value"],
    ["NAME", "must be NAME=value"],
    ["1A=x", "cannot be a variable's name"],
    ["A-B=x", "cannot be a variable's name"],
    ["PORT=1", "PORT is Warren's to give"],
  ])("--env %s is refused", (pair, message) => {
    expect(() => envPair(pair)).toThrow(message);
  });

  test("a file that is not there is named", () => {
    expect(() => readEnvFile("/no/such/.env")).toThrow("--env-file /no/such/.env: ENOENT");
  });
});

describe("a spec is checked before anything is uploaded", () => {
  const spec = (fields: object) => create(TenantSpecSchema, { key: "app", ...fields });

  test("one that is right passes", async () => {
    await checkSpec(spec({ env: { A: "1" }, limits: { memoryBytes: 4n << 20n, cpuMillis: 10 } }));
  });

  test.each([
    [
      { limits: { memoryBytes: 1024n } },
      "spec.limits.memory_bytes: 1024 bytes is less than Bun itself needs",
    ],
    [{ limits: { cpuMillis: 1 } }, "spec.limits.cpu_millis: must be 0 or at least 10"],
    [{ env: { WARREN_X: "1" } }, "spec.env: WARREN_X: names that begin with WARREN_"],
    [{ instances: { min: 3, max: 1 } }, "spec: instances.max must not be below instances.min"],
    [{ readiness: { path: "healthz" } }, "spec.readiness.path: "],
  ])("case %# is refused", async (fields, message) => {
    const error = await checkSpec(spec(fields)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(UserError);
    expect((error as Error).message).toStartWith(message);
  });
});
