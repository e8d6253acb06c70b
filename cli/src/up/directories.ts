/** The directories of a cell on one machine, and who may enter them. */
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";

/**
 * The state directory is ours alone where we make it. One that was there keeps its mode, so that whoever wants isolated
 * tenants can let their uids through (`chmod 711`); what is secret lies in directories that let nobody in.
 */
export function makeDirectories(state: string): void {
  mkdirSync(state, { recursive: true, mode: 0o700 });
  chmodSync(state, (statSync(state).mode & 0o755) | 0o700); // nobody else writes here
  for (const name of ["credentials", "scheduler", "metering", "logs", "run"]) {
    mkdirSync(join(state, name), { recursive: true, mode: 0o700 });
    chmodSync(join(state, name), 0o700);
  }
  for (const name of ["nodes", "volumes"]) {
    mkdirSync(join(state, name), { recursive: true });
    chmodSync(join(state, name), 0o711); // to be passed through, not read
  }
}
