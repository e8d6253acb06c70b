/** Loads a mutated copy of the core. It lies where the core's own imports resolve and nothing else looks. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Core } from "@warren/scheduler/core/core";
import type { Mutant } from "./mutants.ts";
import type { MakeCore } from "./scheduler.ts";

export interface Mutated extends Disposable {
  readonly makeCore: MakeCore;
}

const source = dirname(fileURLToPath(import.meta.resolve("@warren/scheduler/core/core")));
const home = join(source, "../../node_modules/.mutants");

/** @throws Error when the text that is to be changed is not there exactly once */
export async function mutate({ name, file, old, new: text }: Mutant): Promise<Mutated> {
  const original = readFileSync(join(source, file), "utf8");
  const found = original.split(old).length - 1;
  if (found !== 1) {
    throw new Error(`mutant "${name}": its old text is ${found} times in ${file}; it is to be once: ${old}`);
  }
  mkdirSync(home, { recursive: true });
  const directory = mkdtempSync(join(home, "core-"));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  try {
    cpSync(source, directory, { recursive: true });
    writeFileSync(
      join(directory, file),
      original.replace(old, () => text),
    );
    const module = (await import(join(directory, "core.ts"))) as { Core: typeof Core };
    return { makeCore: (options) => new module.Core(options), [Symbol.dispose]: remove };
  } catch (error) {
    remove();
    throw error;
  }
}
