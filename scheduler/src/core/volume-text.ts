/** What is to be said of a tenant's volumes, in a sentence each. Pure. */
import { type HeldVolume, type Moment, type State, serving, type Tenant } from "./model.ts";
import { ageText, volumesOf } from "./volumes.ts";

export function volumesText(state: State, tenant: Tenant, at: Moment): string {
  const held = volumesOf(state, tenant.key);
  return serving(tenant)
    .spec.volumes.map(({ name }) => ` ${textOf(state, name, held.get(name), at)}`)
    .join("");
}

function textOf(state: State, name: string, held: HeldVolume | undefined, at: Moment): string {
  if (!held) return `Its volume ${name} is made with the first start.`;
  const { node: where, restore, backups, restoredAsOf } = held.record;
  const newest = backups[0];
  const coming = backups.find(({ id }) => id === restore);
  if (coming) {
    const failed = held.restoreError ? ` The last try failed: ${held.restoreError}.` : "";
    return `Its volume ${name} has no place: the next start brings it back as it was ${ageText({ at }, coming)}; what was written since is lost.${failed}`;
  }
  if (where === "") return `Its volume ${name} has no place, and begins empty with the next start.`;
  const restored = restoredAsOf
    ? ` It was restored as it was at ${new Date(Number(restoredAsOf.seconds) * 1_000).toISOString().slice(0, 19)}Z.`
    : "";
  const backup = newest ? `backed up ${ageText({ at }, newest)}` : "not backed up yet";
  const node = state.nodes.get(where);
  const away = !node?.confirmed || node.lost;
  const advice = away
    ? ` Node ${where} does not report: bring it back; if it is gone for good, 'warren forget ${where}' ${newest ? "lets the backup come back elsewhere" : "gives the volume up, since there is no backup"}.`
    : "";
  const error = held.backupError ? ` The last backup failed: ${held.backupError}.` : "";
  return `Its volume ${name} lies on node ${where}, and so the tenant runs nowhere else; ${backup}.${restored}${advice}${error}`;
}
