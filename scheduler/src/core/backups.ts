/** When volumes are backed up, and what of it is kept. Bytes go from agent to blob store by the shell. */
import { create } from "@bufbuild/protobuf";
import { fromDuration, fromTimestamp } from "@warren/common/time";
import { type Backup, BackupSchema, type Volume, VolumeChange, type VolumeState } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import type { BackupOutcome } from "./inputs.ts";
import { type HeldVolume, type Node, type State, serving } from "./model.ts";
import { allVolumes, backupBytes, patchVolume, volumeChanged, volumesOf } from "./volumes.ts";

/** Where the spec says nothing. */
const defaultEveryMs = 3_600_000;
const defaultKeep = 7;
/** Under way at once: each reads all of a volume, and goes through the scheduler. */
const mostPerNode = 2;
const mostInAll = 8;
/** Until one that failed is tried again, in ms. */
const againMs = 60_000;

export interface BackupTimes {
  readonly everyMs: number;
  readonly keep: number;
}

/** How the spec that serves has it backed up; nothing for one that is not. */
export function backupTimes(state: State, { record }: HeldVolume): BackupTimes | undefined {
  const volume = inSpec(state, record);
  return volume && timesOf(volume);
}

function inSpec(state: State, { tenant: key, name }: VolumeState): Volume | undefined {
  const tenant = state.tenants.get(key);
  return tenant && serving(tenant).spec.volumes.find((volume) => volume.name === name);
}

export function timesOf({ backup }: Volume): BackupTimes | undefined {
  if (backup?.off) return undefined;
  return { everyMs: fromDuration(backup?.every, defaultEveryMs), keep: backup?.keep || defaultKeep };
}

/** Begins those that are due. */
export function beginBackups(ctx: Context): void {
  const { state, at } = ctx;
  for (const held of allVolumes(state)) {
    const node = state.nodes.get(held.record.node);
    const times = backupTimes(state, held);
    if (!times || !held.record.made || !node?.confirmed || node.lost) continue;
    const last = fromTimestamp(held.record.backups[0]?.asOf ?? held.record.createdAt, 0);
    if (at.wall >= last + times.everyMs && mayBackUp(ctx, held, node)) startBackup(ctx, held, node);
  }
}

/** Whether nothing is done with it, it has not failed just now, and not too many are under way. */
export function mayBackUp({ state, at }: Context, held: HeldVolume, node: Node): boolean {
  if (held.task !== undefined || at.mono < held.backupAt) return false;
  let [here, inAll] = [0, 0];
  for (const { record, task } of allVolumes(state)) {
    if (task !== "backup") continue;
    inAll++;
    if (record.node === node.name) here++;
  }
  return here < mostPerNode && inAll < mostInAll;
}

export function startBackup(ctx: Context, held: HeldVolume, node: Node): void {
  const { tenant, name, id, backups } = held.record;
  held.task = "backup";
  ctx.emit({
    type: "backup-volume",
    tenant,
    name,
    id,
    backup: ctx.newId(),
    fingerprint: backups[0]?.fingerprint ?? "",
    // Of one that no spec names its size is not known.
    maxBytes: Math.max(
      2 * Number(held.used?.bytes ?? 0n),
      backupBytes(inSpec(ctx.state, held.record) ?? { sizeBytes: 0n }),
    ),
    agentUrl: node.agentUrl,
  });
}

/** How it came out. @returns the volume, if it is still the one that was backed up */
export function backedUp(
  ctx: Context,
  { tenant, name, id, outcome }: { tenant: string; name: string; id: string; outcome: BackupOutcome },
): HeldVolume | undefined {
  const held = volumesOf(ctx.state, tenant).get(name);
  if (held?.record.id !== id) {
    // It has another copy by now, or is gone; the bytes are named by nothing, and are collected.
    if (held) held.task = undefined;
    return undefined;
  }
  held.task = undefined;
  if (outcome.kind === "failed") failed(ctx, held, outcome.message);
  else succeeded(ctx, held, outcome);
  return held;
}

function failed(ctx: Context, held: HeldVolume, message: string): void {
  const { tenant, name } = held.record;
  held.backupAt = ctx.at.mono + againMs;
  if (held.backupError === undefined)
    volumeChanged(ctx, held.record, VolumeChange.BACKUP_FAILED, { message }); // once, not at each try
  held.backupError = message;
  count(ctx, "backups_failed");
  for (const call of held.calls.splice(0))
    ctx.emit({ type: "refuse", call, refusal: { kind: "volume", tenant, name, message } });
}

function succeeded(
  ctx: Context,
  held: HeldVolume,
  outcome: Exclude<BackupOutcome, { kind: "failed" }>,
): void {
  held.backupError = undefined;
  held.backupAt = 0;
  const [newest, ...older] = held.record.backups;
  const unchanged = outcome.kind === "unchanged";
  // What has not changed is backed up as of now.
  const backup: Backup = unchanged
    ? create(BackupSchema, { ...newest!, asOf: outcome.asOf })
    : outcome.backup;
  const keep = Math.max(1, backupTimes(ctx.state, held)?.keep ?? defaultKeep);
  const kept = unchanged ? [backup, ...older] : [backup, ...held.record.backups];
  // One that is about to be brought back stays.
  const backups = kept.filter(({ id }, i) => i < keep || id === held.record.restore);
  patchVolume(ctx, held, { backups });
  count(ctx, unchanged ? "backups_unchanged" : "backups");
  if (!unchanged) {
    const message = `${backup.bytes} bytes, compressed; ${backups.length} backups are kept`;
    volumeChanged(ctx, held.record, VolumeChange.BACKED_UP, { asOf: backup.asOf, message });
  }
  for (const call of held.calls.splice(0))
    ctx.emit({ type: "answer", call, answer: { kind: "backup", backup, unchanged } });
}

/** Blobs that are named by a backup. */
export function blobsOfBackups(state: State): Set<string> {
  const blobs = new Set<string>();
  for (const { record } of allVolumes(state))
    for (const { parts } of record.backups) for (const { blob } of parts) blobs.add(blob);
  return blobs;
}
