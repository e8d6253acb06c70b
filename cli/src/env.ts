/** The environment of an app as it is written: NAME=value on the command line, dotenv files. */
import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { UserError } from "./exit.ts";

/** What Windows editors put before a text. */
export function withoutBom(text: string): string {
  return text.replace(/^\uFEFF/, "");
}

const nameRule = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** Warren gives them a value; what else is given is of no effect. */
const given = ["PORT", "HOST"];

/**
 * @param where the pair stands, for the message
 * @throws UserError naming the pair
 */
export function envPair(pair: string, where = `--env ${pair}`): Record<string, string> {
  const at = pair.indexOf("=");
  if (at < 1) throw new UserError(`${where}: must be NAME=value`);
  const name = pair.slice(0, at);
  if (given.includes(name)) {
    throw new UserError(`${where}: ${name} is Warren's to give: the app must listen where PORT and HOST say`);
  }
  checkName(name, where);
  return { [name]: pair.slice(at + 1) };
}

/** @throws UserError for what cannot be the name of a variable */
export function checkName(name: string, where: string): void {
  if (nameRule.test(name)) return;
  throw new UserError(
    `${where}: ${JSON.stringify(name)} cannot be a variable's name: letters, digits and _, not a digit first`,
  );
}

/**
 * "NAME=value" as a dotenv file has it, and {@link readEnvFile} reads it back.
 */
export function envLine(name: string, value: string): string {
  if (/^[\w@%+:,./-]*$/.test(value)) return `${name}=${value}`;
  const quote = ["'", "`", '"'].find((one) => !value.includes(one));
  return quote ? `${name}=${quote}${value}${quote}` : `${name}=${JSON.stringify(value)}`;
}

/**
 * A dotenv file, or stdin ("-"). PORT and HOST in it are for the developer's machine, and left out.
 * @throws UserError naming the file
 */
export function readEnvFile(path: string): Record<string, string> {
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw new UserError(`--env-file ${path}: ${(error as Error).message}`);
  }
  const pairs = Object.entries(parseEnv(withoutBom(text))) as [string, string][];
  for (const [name] of pairs) checkName(name, `--env-file ${path}`);
  return Object.fromEntries(pairs.filter(([name]) => !given.includes(name)));
}
