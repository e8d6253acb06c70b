/** The command of an app, as words after "--": they may begin with a dash, which those of --command may not. */
import { UserError } from "./exit.ts";

/** For commander: what stands after "--". */
export const commandArgument = [
  "[command...]",
  "after --: command to run instead of the app's entry",
] as const;

/**
 * @param operands what commander counts to the command
 * @param flag the words of --command
 * @param argv as it was typed
 * @throws UserError when there are two commands, or words without "--"
 */
export function commandOf(
  operands: readonly string[],
  flag: readonly string[] | undefined,
  argv: readonly string[] = process.argv,
): readonly string[] | undefined {
  const at = argv.indexOf("--");
  const after = at < 0 ? [] : argv.slice(at + 1);
  if (operands.length < after.length) throw new UserError(`what stands before -- is missing: see --help`);
  const stray = operands.slice(0, operands.length - after.length);
  if (stray.length > 0) {
    const words = [...stray, ...after].map(quoted).join(" ");
    throw new UserError(`too many arguments: ${words}. If that is the app's command, write it after --`);
  }
  if (operands.length > 0 && flag?.length) {
    throw new UserError("the command is given twice: by --command, and after --");
  }
  const command = operands.length > 0 ? operands : flag;
  const only = command?.length === 1 ? command[0]! : "";
  if (/\s/.test(only.trim())) {
    throw new UserError(
      `${quoted(only)} would be the name of one program: write the command as words: -- ${only.trim()}, or for a shell: -- sh -c ${quoted(only)}`,
    );
  }
  return command;
}

/** --command takes all words that follow it. */
export function noDirectory(flag: readonly string[] | undefined): string {
  return flag?.length
    ? `which directory? --command took all words that follow it: write warren deploy DIR -- ${flag.map(quoted).join(" ")}`
    : "which directory? Write warren deploy DIR, '.' for this one";
}

/** As a shell reads it back. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
