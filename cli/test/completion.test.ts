/** Tab in each shell, as its completion function answers it. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isQuick } from "@warren/common/testing/quick";
import { Argument, Command, Option } from "commander";
import { candidates } from "../src/completion/candidates.ts";
import { scripts } from "../src/completion/scripts.ts";

describe("what may come next", () => {
  const program = new Command("warren");
  program
    .command("deploy")
    .alias("push")
    .argument("[dir]")
    .option("--level <level>", "a level")
    .option("-f, --file <file>", "a file")
    .option("--json", "print JSON");
  program.command("stop").description("the app's end").argument("<tenants...>");
  program.command("logs").argument("<tenant>");
  program.commands[0]!.addOption(new Option("--isolation <level>").choices(["none", "user"]));
  const ca = program.command("ca");
  ca.command("init");
  ca.command("issue").addArgument(new Argument("<role>").choices(["agent", "client"]));
  program.command("__complete", { hidden: true });
  const after = (...words: string[]) => {
    const { words: found, kind } = candidates(program, words);
    return kind ?? found.map(({ word }) => word);
  };

  test.each<[string[], string | string[]]>([
    [[""], ["deploy", "stop", "logs", "ca", "help"]],
    [
      ["ca", ""],
      ["init", "issue", "help"],
    ],
    [
      ["ca", "issue", ""],
      ["agent", "client"],
    ],
    [
      ["deploy", "--isolation", ""],
      ["none", "user"],
    ],
    [
      ["deploy", "-"],
      ["--level", "--file", "--json", "--isolation", "--help"],
    ],
    [["push", ""], "directories"],
    [["deploy", "--json", ""], "directories"],
    [["deploy", "-f", ""], "files"],
    [["deploy", "app", "--", ""], []],
    [["deploy", "app", ""], []],
    [["logs", ""], "tenants"],
    [["stop", "a", "b", ""], "tenants"],
    [["nonsense", ""], []],
  ])("after %j", (words, expected) => {
    expect<unknown>(after(...words)).toEqual(expected);
  });
});

describe.skipIf(isQuick)("in a real shell", () => {
  const root = mkdtempSync(join(tmpdir(), "warren-completion-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  symlinkSync(join(import.meta.dir, "..", "bin", "warren"), join(root, "warren"));
  mkdirSync(join(root, "an app"));
  writeFileSync(join(root, "a file"), "");

  const ask: Readonly<Record<string, (line: string) => readonly string[]>> = {
    bash: (line) => [
      "bash",
      "-c",
      `. ./completion.bash; compopt() { :; }; COMP_WORDS=(${line}); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 )); _warren; printf '%s\\n' "\${COMPREPLY[@]}"`,
    ],
    zsh: (line) => [
      "zsh",
      "-f",
      "-c",
      `compdef() { :; }; _describe() { print -l -- \${(P)2}; }; _files() { print -l -- *; }; . ./completion.zsh; words=(${line}); CURRENT=\${#words}; _warren`,
    ],
    fish: (line) => [
      "fish",
      "--no-config",
      "-c",
      `source ./completion.fish; complete -C '${line.replace(/''$/, "").replaceAll("'", "")}'`,
    ],
  };

  for (const shell of Object.keys(scripts)) {
    const missing = Bun.which(shell) === null ? ` (needs ${shell}: make setup-dev)` : "";
    test.skipIf(missing !== "")(
      `${shell}: verbs, values, directories and summaries with apostrophes${missing}`,
      () => {
        writeFileSync(join(root, `completion.${shell}`), scripts[shell]!);
        const tab = (line: string) => {
          const env = { HOME: root, PATH: `${root}:${process.env.PATH}`, WARREN_STATE: join(root, "none") };
          const { stdout, stderr } = Bun.spawnSync([...ask[shell]!(line)], { cwd: root, env });
          return `${stdout}${stderr}`;
        };
        const levels = tab("warren up --isolation ''");
        for (const level of ["none", "user", "cgroup", "namespace"]) expect(levels).toContain(level);
        expect(tab("warren deploy ''")).toContain("an app");
        const verbs = tab("warren ''");
        expect(verbs).toContain("deploy");
        if (shell !== "bash") expect(verbs).toContain("tenant's");
      },
    );
  }
});
