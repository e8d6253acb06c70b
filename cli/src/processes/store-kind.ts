/** Which store a scheduler's state directory belongs to: opened with the other one, the cluster would be empty without a word. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { exitCodes, UserError } from "../exit.ts";

export type StoreKind = "embedded" | "nats";

const names: Readonly<Record<StoreKind, string>> = {
  embedded: "the embedded store",
  nats: "NATS",
};

/**
 * Notes the kind in the directory the first time.
 * @throws UserError when the directory belongs to the other one
 */
export function claimStore(directory: string, kind: StoreKind): void {
  const known = kindOf(directory);
  if (known !== undefined && known !== kind) {
    const flag = kind === "nats" ? "--nats (or NATS_URL) is given" : "--nats is not given";
    throw new UserError(
      `${directory} belongs to a cluster on ${names[known]}, and ${flag}: on ${names[kind]} it would begin without its tenants. ${
        known === "nats" ? "Give --nats" : "Leave --nats out"
      } to go on with it; to move it: 'warren state dump FILE', start with another --state, then 'warren state restore FILE'`,
      exitCodes.refused,
    );
  }
  if (known === kind && existsSync(join(directory, file))) return;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(join(directory, file), `${kind}\n`, { mode: 0o600 });
}

const file = "store";

/** By its note, else by what a version without notes left there. */
function kindOf(directory: string): StoreKind | undefined {
  try {
    const noted = readFileSync(join(directory, file), "utf8").trim();
    if (noted === "embedded" || noted === "nats") return noted;
  } catch {
    // No note yet.
  }
  return existsSync(join(directory, "cluster.db")) ? "embedded" : undefined;
}
