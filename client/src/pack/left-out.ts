/** Which files of an app stay where they are: version control, editors' litter, dotenv files, registries' tokens, what .warrenignore names. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import ignore, { type Ignore } from "ignore";
import { unreadable } from "./error.ts";

export const ignoreFile = ".warrenignore";

/** Left out at any depth: version control, systems' litter, our own state. */
const litter: ReadonlySet<string> = new Set([".git", ".hg", ".svn", ".DS_Store", ".warren"]);

/** `.env` and `.env.*`, whose values are for one machine or secret; not the templates that document them. */
const dotenv = /^\.env(?:\..+)?$/;
const dotenvTemplate = /\.(?:example|sample|template)$/;

export function isDotenv(basename: string): boolean {
  return dotenv.test(basename) && !dotenvTemplate.test(basename);
}

/** Settings of npm, pnpm and Yarn, which may hold a registry's token; what was installed needs none of them to run. */
const registrySettings = /^\.(?:npmrc|yarnrc(?:\.ya?ml)?)$/;

/** Why an entry is left out. */
export type LeftOut = "litter" | "dotenv" | "registry" | "ignored";

/** The rules of one app. */
export class LeaveOut {
  private constructor(private readonly rules: Ignore | undefined) {}

  /** Reads the root's .warrenignore, if there is one. @throws PackError when it cannot be read */
  static async of(root: string): Promise<LeaveOut> {
    let text: string;
    try {
      text = await readFile(join(root, ignoreFile), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return new LeaveOut(undefined);
      throw unreadable(ignoreFile, error);
    }
    return LeaveOut.by(text);
  }

  /** @param text lines in the syntax of .gitignore */
  static by(text: string): LeaveOut {
    // Git matches case as it is written, where file names have case.
    return new LeaveOut(ignore({ ignorecase: false }).add(text.replace(/^\uFEFF/, "")));
  }

  /**
   * @param name the path from the root, with slashes; the rules of .warrenignore win, so that `!.env` takes a file along
   * @param ofPackage it belongs to a package of a registry: what that published is neither secret nor of this machine
   */
  why(name: string, isDirectory: boolean, ofPackage: boolean): LeftOut | undefined {
    const found = this.rules?.test(isDirectory ? `${name}/` : name);
    if (found?.unignored) return undefined;
    if (found?.ignored) return "ignored";
    const basename = name.slice(name.lastIndexOf("/") + 1);
    if (litter.has(basename) || name === ignoreFile) return "litter";
    if (isDirectory || ofPackage) return undefined;
    if (isDotenv(basename)) return "dotenv";
    return registrySettings.test(basename) ? "registry" : undefined;
  }
}
